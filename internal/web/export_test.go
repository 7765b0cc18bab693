package web

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
