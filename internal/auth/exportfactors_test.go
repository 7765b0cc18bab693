package auth

// What one-time codes are made of and compared by.
var (
	OneTimeCode = codeOf
	StepOf      = stepOf
	MatchCode   = matchCode
	PlainCode   = plainCode
)

// CodesOf is what a user's codes are counted under.
var CodesOf = codesOf
