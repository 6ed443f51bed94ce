package resolver

// TakeUp takes up one saved answer.
func TakeUp(r *Resolver, b []byte) (bool, error) { return r.restoreAnswer(b) }
