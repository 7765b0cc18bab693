package auth

// PretendedCost is the cost of hashing that an address without a password is
// made to pay.
func (s *Service) PretendedCost(email string) string { return s.pretendedCost(email) }

// MaxRequests is how many recovery requests may wait.
const MaxRequests = maxRequests

// RequestBatch is how many are looked at at a time.
const RequestBatch = requestBatch
