package nbde

// Exchanges are the thumbprints (SHA-256) of the exchange keys that a node is answered for: its own, and those that all share when they are served. True is one that
// was rotated.
func (s *Service) Exchanges(node string) map[string]bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := map[string]bool{}
	add := func(keys []*stored) {
		for _, k := range keys {
			if k.Use == string(Exchange) {
				out[k.Thumbprint] = !k.Rotated.IsZero()
			}
		}
	}
	if s.o.Open {
		add(s.keys[""])
	}
	if s.nodes[node] != nil {
		add(s.keys[node])
	}
	return out
}
