package token_test

// What the formats give for fixed keys, worked out by another program.
const (
	goldenRefresh      = "AQECAwQAESIzRFVmd4iZqrvM3e7_AAABAAAAAAXfnj-0aSPJ6H5lI1oAz3Wt"
	goldenVersion2     = "AgECAwQAESIzRFVmd4iZqrvM3e7_AAABAAAAAAV_NleXte9ApdBtfNIXNsTG" // goldenRefresh but for its version, with a MAC that fits
	goldenRecovery     = "f74540f9-230d-4b72-96a6-b58a9bbc727a"
	goldenRecoveryHash = "d86f8d5ea66b0c6f5b84daa23f7cf6e7b84ab7b9bb293d95cb344aef10c3f188"
	goldenDecoy        = 0.598834591022911
	goldenSeal         = "AW5vbmNlIGJ5dGVzIRLAWF6LWJnhXGcFo7U09jUqkV2taA==" // key: 32 zeros
)
