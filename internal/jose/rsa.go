package jose

import (
	"crypto/rsa"
	"errors"
	"math/big"
)

// RSA moduli of other sizes are too weak, or make verifying slow.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

func checkRSA(k *rsa.PublicKey) error {
	switch bits := k.N.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return errors.New("RSA modulus must have 2048 to 8192 bits")
	case k.E < 3 || k.E%2 == 0:
		return errors.New("RSA exponent must be odd and at least 3")
	case hasROCA(k.N):
		return errors.New("RSA modulus is from a broken generator (CVE-2017-15361)")
	}
	return nil
}

var rocaPrimes = []int64{
	11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
}

// hasROCA recognizes the moduli of CVE-2017-15361: modulo each small prime
// they are a power of 65537.
func hasROCA(n *big.Int) bool {
	for _, p := range rocaPrimes {
		if !isPowerOf65537(new(big.Int).Mod(n, big.NewInt(p)).Int64(), p) {
			return false
		}
	}
	return true
}

func isPowerOf65537(residue, p int64) bool {
	power := int64(1)
	for range p {
		if power == residue {
			return true
		}
		power = power * 65537 % p
	}
	return false
}
