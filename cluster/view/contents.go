package view

// contents is how many services' contents are here: when it grows, a name is new
// to the file.
func (s *State) contents() int { return s.services.Len() }
