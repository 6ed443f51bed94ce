package server

import (
	"context"
	"errors"
	"fmt"

	"meibo/cluster/bootstrap"
)

// What servers ask of one another.
const (
	// PathHealth asks a server for what it says of itself.
	PathHealth = "/internal/health"
	pathLeave  = "/internal/leave"
)

// Paths are those that [Server.Answer] knows.
var Paths = append([]string{PathHealth, pathLeave}, bootstrap.Paths...)

type leaveRequest struct {
	RaftID string `codec:"RaftID"`
}

// Answer answers what another server asks at the path; decode reads the question.
func (s *Server) Answer(ctx context.Context, path string, decode func(any) error) (any, error) {
	switch path {
	case PathHealth:
		return s.health(), nil
	case pathLeave:
		var req leaveRequest
		if err := decode(&req); err != nil {
			return nil, err
		}
		return struct{}{}, inCatalogTerms(s.replica.RemoveServer(ctx, req.RaftID))
	}
	if s.boot == nil {
		return nil, errors.New("this host does not take part in the beginning of a cluster at present")
	}
	select {
	case <-s.replica.Opened():
	case <-ctx.Done():
		return nil, ctx.Err() // whether it belongs to one is not known yet
	}
	answer, err := s.boot.Answer(ctx, path, decode)
	if err != nil {
		return nil, fmt.Errorf("begin a cluster: %w", err)
	}
	return answer, nil
}
