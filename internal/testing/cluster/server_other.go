//go:build !unix

package cluster

import "errors"

// Pause is for Unix only.
func (s *Server) Pause() error { return errors.ErrUnsupported }

// Continue is for Unix only.
func (s *Server) Continue() error { return errors.ErrUnsupported }
