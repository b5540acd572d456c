package electortest

// OpenWatches returns how many watches the server sends to, and how many the clients listen to.
func (s *Server) OpenWatches() (sending, listening int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.watches {
		sending += len(list)
	}
	for _, c := range s.clients {
		listening += len(c.watches)
	}
	return sending, listening
}
