package token

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// rsaBits is the length of a key of ID tokens: NIST SP 800-57 allows it through 2030,
// and clients by the dozen take nothing else.
const rsaBits = 2048

// ErrNoKey means that the server has no key for apps yet: one is being made.
var ErrNoKey = errors.New("there is no server key for it yet")

// idSigner signs what apps read: ID tokens and logout tokens.
type idSigner struct {
	id  string
	key *rsa.PrivateKey
}

func parseIDSigner(id string, plain []byte) (*idSigner, error) {
	key, err := x509.ParsePKCS1PrivateKey(plain)
	if err != nil || key.N.BitLen() < rsaBits {
		return nil, errors.New("what is sealed is not an RSA private key of 2048 bits")
	}
	return &idSigner{id, key}, nil
}

func (k *Keyring) addID(s *idSigner, key KeyStatus) {
	if key.State == Expired {
		return
	}
	public := jose.JSONWebKey{Key: &s.key.PublicKey, KeyID: s.id, Use: "sig", Algorithm: string(jose.RS256)}
	if key.State == Active {
		k.idSigner = s
		k.idPublic = append([]jose.JSONWebKey{public}, k.idPublic...)
		return
	}
	k.idPublic = append(k.idPublic, public)
}

// SignID returns a JWT of claims for an app, of that type ("JWT" for an ID token, "logout+jwt"
// for a logout token), signed with RS256. ErrNoKey until there is a key.
func (k *Keyring) SignID(kind string, claims any) (string, error) {
	if k.idSigner == nil {
		return "", ErrNoKey
	}
	header, err := json.Marshal(map[string]string{"alg": string(jose.RS256), "kid": k.idSigner.id, "typ": kind})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString(header) + "." + b64.EncodeToString(payload)
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, k.idSigner.key, crypto.SHA256, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign an ID token: %w", err)
	}
	return text + "." + b64.EncodeToString(signature), nil
}

// maxHint bounds an ID token that comes back, in bytes.
const maxHint = 16 << 10

// OpenID reads an ID token that comes back as a hint, of type JWT: its claims, however old
// it is. False if none of the keys has signed it.
func (k *Keyring) OpenID(text string, claims any) bool {
	if len(text) > maxHint {
		return false
	}
	parsed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || len(parsed.Signatures) != 1 {
		return false
	}
	header := parsed.Signatures[0].Header
	if kind, _ := header.ExtraHeaders["typ"].(string); kind != "JWT" {
		return false
	}
	for _, public := range k.idPublic {
		if public.KeyID != header.KeyID {
			continue
		}
		payload, err := parsed.Verify(public.Key)
		return err == nil && json.Unmarshal(payload, claims) == nil
	}
	return false
}
