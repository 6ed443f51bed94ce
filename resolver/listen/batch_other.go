//go:build !linux

package listen

import (
	"context"

	"meibo/resolver/wire"
)

func (s *udpSocket) receive(ctx context.Context) error { return s.receiveEach(ctx) }

type lateReplies struct{}

func (s *udpSocket) sendLate(q *wire.Query, msg []byte, kind int) { s.send(q, msg, kind, &s.late) }
