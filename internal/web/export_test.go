package web

import "golang.org/x/time/rate"

// StopPace has so many refusals pass at once, and no more; left says how many still may.
func (s *Server) StopPace(n int) (left func() int) {
	s.refusals = rate.NewLimiter(0, n)
	return func() int { return int(s.refusals.Tokens()) }
}

// Routes are the methods and paths of a server that has a site to go on to, and lets users
// delete their accounts.
func Routes() (all [][2]string) {
	return RoutesOf(&Server{SiteURL: "https://example.org", SelfDelete: true})
}

// RoutesOf are those of a server.
func RoutesOf(s *Server) (all [][2]string) {
	for _, r := range s.routes() {
		all = append(all, [2]string{r.method, r.path})
	}
	return all
}
