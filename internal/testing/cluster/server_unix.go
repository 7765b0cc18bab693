//go:build unix

package cluster

import "syscall"

// Pause stops the server as if its machine stood still (SIGSTOP): connections
// stay open, nothing is answered.
func (s *Server) Pause() error {
	process, _ := s.current()
	return process.Signal(syscall.SIGSTOP)
}

// Continue ends a Pause.
func (s *Server) Continue() error {
	process, _ := s.current()
	return process.Signal(syscall.SIGCONT)
}
