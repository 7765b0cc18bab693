package auth

import (
	"kwai/internal/store"
)

// Passkey is one of a user's.
type Passkey = store.Passkey

// usedPasskey is a passkey whose signature was verified, and the challenge that it is of.
type usedPasskey struct{ id string }

func (s *Service) passkeysOf(r store.Reader, userID string) ([]Passkey, error) { return nil, nil }

func (s *Service) usePasskey(tx *store.Tx, user store.User, p usedPasskey) error { return nil }
