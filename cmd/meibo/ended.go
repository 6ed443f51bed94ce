package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"meibo/cluster/httpapi/client"
	"meibo/cluster/retry"
)

// endAgain is how often it is looked whether a daemon has ended.
const endAgain = 50 * time.Millisecond

// watchEnd returns what waits until the daemon that c calls has ended, or ctx does. It is called while the daemon lives.
func watchEnd(c *client.Client) (wait func(ctx context.Context) error) {
	if socket, ok := strings.CutPrefix(c.Address(), "unix://"); ok {
		if wait, err := watchProcess(socket); err == nil {
			return wait
		}
	}
	return func(ctx context.Context) error { return untilSilent(ctx, c) }
}

// untilSilent waits until nobody answers where the daemon did, which is all that can be seen of one on another host.
func untilSilent(ctx context.Context, c *client.Client) error {
	for ctx.Err() == nil {
		_, err := c.Self(ctx)
		if call := new(net.OpError); errors.As(err, &call) && call.Op == "dial" && ctx.Err() == nil {
			return nil
		}
		retry.Wait(ctx, endAgain)
	}
	return ctx.Err()
}
