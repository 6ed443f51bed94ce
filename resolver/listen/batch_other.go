//go:build !linux

package listen

import "context"

func (s *udpSocket) receive(ctx context.Context) error { return s.receiveEach(ctx) }
