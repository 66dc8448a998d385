package attacks_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// row is one attack of the catalogue: the tests that cover it, each as
// directory.Name, or why there is none.
type row struct {
	tests []string
	why   string
	// otherwise is what we answer otherwise than the catalogue asks, and why.
	otherwise string
}

func by(tests ...string) row { return row{tests: tests} }

func (r row) but(otherwise string) row {
	r.otherwise = otherwise
	return r
}

// catalogue are the numbers of all attacks: J on the form and signature of
// tokens, C on claims, K on keys and introspection, P on paths and routing, H on
// headers, F on framing and the filter, R on policies, B on passwords and API
// keys.
//
// P, H and F are about what Envoy makes of a request and of an answer, so theirs are
// sent through Envoy, and all four things are looked at. What J, C, K, R and B are
// refused for is tested where it is refused: the verifier, the provider's keys, the
// server in process. What Envoy does with a denial or an allow is the same
// whatever the reason: the rows of P, H and F show it, and TestBadCredentials, which
// sends one of each kind of bad credential the whole way.
var catalogue = map[string][]int{
	"J": {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 29},
	"C": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18},
	"K": {1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13},
	"P": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18},
	"H": {1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	"F": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 15, 16, 17},
	"R": {1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
	"B": {1, 2, 3, 4, 5, 6, 7, 8, 9},
}

var coverage = map[string]row{
	"J01": by("extauthz/credential.TestMalformedTokens", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"J02": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"J03": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"J04": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J05": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J06": by("extauthz/credential.TestForgedTokens"),
	"J07": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"J08": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestKeySetsAttacked"),
	"J10": by("extauthz/credential.TestKeySetsAttacked", "extauthz/credential.TestOneSignatureIsTried"),
	"J11": by("extauthz/credential.TestKeySetsAttacked", "extauthz/credential.TestOneSignatureIsTried"),
	"J12": by("extauthz/credential.TestKeySetsAttacked"),
	"J13": by("extauthz/credential.TestKeySetsAttacked"),
	"J14": by("extauthz/credential.TestKeySetsAttacked", "extauthz/credential.TestLargestKeyIsNoBomb"),
	"J15": by("extauthz/credential.TestMalformedTokens", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"J16": by("extauthz/credential.TestMalformedTokens"),
	"J18": by("extauthz/credential.TestMalformedTokens", "extauthz/credential.TestVerifyAccepts", "internal/attacks.TestBadCredentials"),
	"J19": by("extauthz/credential.TestMalformedTokens"),
	"J20": by("extauthz/credential.TestForgedTokens"),
	"J22": by("extauthz/credential.TestMalformedTokens", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"J23": by("extauthz/credential.TestForgedTokens"),
	"J24": by("extauthz/credential.TestForgedTokens", "internal/attacks.TestBadCredentials"),
	"J25": by("extauthz/credential.TestMalformedTokens"),
	"J26": by("extauthz/credential.TestBigTokens", "extauthz/credential.TestMalformedTokens", "extauthz/credential.TestRefusingIsCheap", "internal/attacks.TestBadCredentials"),
	"J27": by("extauthz/credential.TestMalformedTokens"),
	"J28": by("extauthz/credential.TestBigTokens", "extauthz/credential.TestFindRefuses", "extauthz/credential.TestRefusingIsCheap", "extauthz/credential.TestVerifyRefuses"),
	"J29": by("extauthz/credential.TestFindRefuses", "internal/attacks.TestTwoCredentials").but("a token in a cookie beside one in Authorization " +
		"is not refused: cookies and bodies are never read as credentials, so there are no two to choose from, and what an application keeps in its cookies is its own"),
	"C01": by("extauthz/credential.TestVerifyAccepts", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"C02": by("extauthz/credential.TestTokenLifetime", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"C03": by("extauthz/credential.TestVerifyAtTheEdges"),
	"C04": by("extauthz/credential.TestNothingIsNormalized", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"C05": by("extauthz/credential.TestBigTokens", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"C06": {why: "a Passport has one audience, the trust domain, whatever audiences its token had; who may call with it is what rules say"},
	"C07": by("extauthz/credential.TestTokenTypes", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"C08": by("extauthz/credential.TestTokenTypes"),
	"C09": by("extauthz.TestPassportOpensNoGateway", "extauthz/credential.TestPassportFromOutside", "extauthz/credential.TestVerifyRefuses"),
	"C10": by("extauthz/credential.TestTokenTypes", "extauthz/credential.TestVerifyRefuses"),
	"C12": by("extauthz/credential.TestNothingIsNormalized", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"C13": by("extauthz/credential.TestEmailAsUser"),
	"C14": by("extauthz/credential.TestNothingIsNormalized", "extauthz/credential.TestVerifyRefuses"),
	"C15": by("extauthz/credential.TestVerifyRefuses"),
	"C16": by("extauthz/credential.TestClaimPath"),
	"C17": by("extauthz/credential.TestIssuersAreApart", "extauthz/credential.TestMatch", "extauthz.TestProvidersSpeakForTheirTenants", "extauthz.TestGatewayLetsInItsTenants", "extauthz/model.TestDifferential", "internal/attacks.TestBadCredentials"),
	"C18": by("extauthz.TestIntrospection", "extauthz/credential.TestBoundToken", "extauthz/credential.TestIntrospectionRefuses", "extauthz/credential.TestVerifyRefuses", "internal/attacks.TestBadCredentials"),
	"K01": by("extauthz.TestFloods", "extauthz/provider.TestWhenKeysAreFetched"),
	"K03": by("extauthz/provider.TestRotation"),
	"K04": by("extauthz/provider.TestKeysThatCannotBeFetched", "breaker.TestGetJSONRefuses"),
	"K05": by("extauthz/provider.TestKeysThatCannotBeFetched", "extauthz/provider.TestOutage", "extauthz.TestUndecidableIsDenied"),
	"K06": by("extauthz/provider.TestRotation"),
	"K07": by("extauthz/provider.TestPrivateProviders", "mesh.TestCheckAddress"),
	"K08": by("extauthz/provider.TestKeysThatCannotBeFetched"),
	"K09": by("extauthz.TestIntrospection", "extauthz/credential.TestIntrospectionRefuses", "extauthz/introspection.TestAnswers"),
	"K10": by("extauthz.TestOpaqueTokens", "extauthz/introspection.TestIntrospect"),
	"K12": by("extauthz/introspection.TestOtherTokens", "internal/attacks.TestBadCredentials"),
	"K13": by("extauthz/introspection.TestFloodOfRandomTokens"),
	"P01": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestPaths"),
	"P02": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestPaths"),
	"P03": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestPaths"),
	"P04": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestPaths"),
	"P05": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestHTTP2", "internal/attacks.TestPaths"),
	"P06": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestPaths"),
	"P07": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestPaths"),
	"P08": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestPaths"),
	"P09": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestEachEncodedByte"),
	"P10": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestHosts", "internal/attacks.TestPaths"),
	"P11": by("envoy.TestGatewayRefusesAmbiguousPaths", "internal/attacks.TestHTTP2", "internal/attacks.TestPaths"),
	"P12": by("internal/attacks.TestHosts"),
	"P13": by("internal/attacks.TestMethods"),
	"P14": by("internal/attacks.TestPaths"),
	"P16": by("internal/attacks.TestNamesAreNoExpressions"),
	"P17": by("internal/attacks.TestLongPaths"),
	"P18": by("internal/attacks.TestConfiguration", "internal/attacks.TestNothingIsRedirected"),
	"H01": by("internal/attacks.TestHTTP2", "internal/attacks.TestPassportFromOutside"),
	"H03": by("internal/attacks.TestAddressesFromOutside"),
	"H04": by("internal/attacks.TestClaimsFromOutside"),
	"H05": by("internal/attacks.TestClaimsFromOutside"),
	"H06": by("internal/attacks.TestCertificatesFromOutside"),
	"H07": by("envoy.TestExtAuthzSeesDuplicates", "internal/attacks.TestHTTP2", "internal/attacks.TestTwoCredentials"),
	"H08": by("envoy.TestExtAuthzSeesDuplicates", "internal/attacks.TestSeveralValues"),
	"H09": by("extauthz/opaenvoy.TestMalformedIsDenied", "internal/attacks.TestHTTP2", "internal/attacks.TestNoHeaders"),
	"H10": by("internal/attacks.TestHTTP2", "internal/attacks.TestMethods", "internal/attacks.TestNoHeaders"),
	"H11": by("internal/attacks.TestHTTP2Floods", "internal/attacks.TestManyHeaders"),
	"H12": by("internal/attacks.TestAnswersAreHeaders"),
	"H13": by("internal/attacks.TestClaimsFromOutside"),
	"H14": by("internal/attacks.TestAnswersOfServices", "internal/attacks.TestConfiguration"),
	"H15": by("internal/attacks.TestPreflight"),
	"F01": by("internal/attacks.TestSmuggling"),
	"F02": by("internal/attacks.TestHTTP2"),
	"F03": by("internal/attacks.TestUpgrades"),
	"F04": by("internal/attacks.TestGRPCIsToldItsWay"),
	"F05": by("internal/attacks.TestBodies", "internal/attacks.TestConfiguration"),
	"F06": by("internal/attacks.TestBodies", "internal/attacks.TestConfiguration"),
	"F07": by("internal/attacks.TestBodies", "internal/attacks.TestHTTP2Bodies"),
	"F08": by("extauthz.TestBodyThatIsNoBytes", "internal/attacks.TestBodies"),
	"F09": by("internal/attacks.TestConfiguration", "internal/attacks.TestNoAnswer"),
	"F10": by("envoy.TestEveryRouteIsProtected"),
	"F12": by("internal/attacks.TestConfiguration"),
	"F13": by("internal/attacks.TestConfiguration"),
	"F15": by("internal/attacks.TestAnswersOfServices"),
	"F16": by("internal/attacks.TestAnswersOfServices", "internal/attacks.TestConfiguration"),
	"F17": by("internal/attacks.TestConfiguration"),
	"R01": by("extauthz/policy.TestCompileFaults", "extauthz/policy.TestCostIsBoundedAtRunTime", "extauthz/policy.TestCostOfBodies", "extauthz/policy.TestCancelledContextDenies"),
	"R03": by("extauthz/policy/rego.TestRefusedFunctions", "extauthz/policy/rego.TestEvaluationIsBounded", "extauthz/policy/rego.TestCancelledContextDenies", "extauthz/opaenvoy.TestTooLate"),
	"R04": by("extauthz/opaenvoy.TestIllegalDecisions"),
	"R05": by("extauthz.TestUndecidableIsDenied", "extauthz/opaenvoy.TestNothingToDecideBy"),
	"R06": by("extauthz.TestConditionsAndRegoDecideTheSame"),
	"R07": by("sidecar.TestRevisionWaitsForAllItsParts", "extauthz.TestNoDecisionMixesTwoRevisions", "extauthz.TestEveryDecisionIsRecorded"),
	"R08": by("extauthz/policy/bundle.TestOpenRefusesArchives", "extauthz/policy/bundle.TestOpenRefusesSignatures", "extauthz/policy/bundle.TestOpenBitFlips", "extauthz/policy/bundle.TestVersions"),
	"R09": by("extauthz.TestExplain"),
	"R10": by("internal/attacks.TestValuesAreNoExpressions"),
	"R11": by("extauthz.TestCacheEnds", "extauthz.TestRevokedCredentialIsRefused", "internal/attacks.TestBadCredentials"),
	"R12": by("extauthz/policy.TestMissingDenies", "extauthz/policy.TestEval", "internal/attacks.TestSeveralValues"),
	"B01": by("extauthz/credential.TestLongPasswords"),
	"B02": by("extauthz/credential.TestRememberedPasswords"),
	"B03": by("extauthz.TestRefusalsAreTheSame", "extauthz/credential.TestFindRefuses", "internal/attacks.TestBadCredentials"),
	"B04": by("extauthz.TestRefusalsAreTheSame", "extauthz/credential.TestNewUsersRefuses", "extauthz/credential.TestPasswords", "internal/attacks.TestBadCredentials"),
	"B05": by("extauthz/credential.TestUnknownUsersCostTheSame", "internal/attacks.TestBadCredentials"),
	"B06": by("extauthz.TestGuessesLockNobodyOut", "extauthz/credential.TestHashesAtOnce", "extauthz/credential.TestThrottledPasswords"),
	"B07": by("extauthz.TestRefusalsAreTheSame", "extauthz/credential.TestAPIKeyRefused", "extauthz/credential.TestFindRefuses", "internal/attacks.TestBadCredentials"),
	"B08": by("extauthz.TestRefusalsAreTheSame", "extauthz/credential.TestAPIKeyRefused"),
	"B09": by("extauthz.TestRefusalsAreTheSame", "extauthz/credential.TestAPIKeyRefused", "extauthz/credential.TestPasswords", "extauthz/credential.TestRememberedPasswords"),
}

// Nothing stands in the place of an attack that is in the catalogue, and no test
// that is gone covers one.
func TestEveryAttackIsCovered(t *testing.T) {
	t.Parallel()
	ids := map[string]bool{}
	for series, numbers := range catalogue {
		for _, n := range numbers {
			ids[fmt.Sprintf("%s%02d", series, n)] = true
		}
	}
	known := map[string]map[string]string{}
	for id, row := range coverage {
		if !ids[id] {
			t.Errorf("%s is no attack", id)
		}
		for _, name := range row.tests {
			i := strings.LastIndexByte(name, '.')
			dir, test := name[:i], name[i+1:]
			if known[dir] == nil {
				known[dir] = testsOf(t, dir)
			}
			if known[dir][test] == "" {
				t.Errorf("%s: there is no %s", id, name)
			}
		}
	}
	for id := range ids {
		row := coverage[id]
		if (len(row.tests) == 0) == (row.why == "") {
			t.Errorf("%s has no test and no reason, or both", id)
		}
		if row.otherwise != "" {
			t.Logf("%s is not answered as the catalogue asks: %s", id, row.otherwise)
		}
		// Of credentials, each attack has a row that names it.
		names := func(test string) bool {
			i := strings.LastIndexByte(test, '.')
			return strings.Contains(known[test[:i]][test[i+1:]], id)
		}
		if strings.Contains("JCB", id[:1]) && row.why == "" && !slices.ContainsFunc(row.tests, names) {
			t.Errorf("%s is in none of %v", id, row.tests)
		}
	}
}

// testsOf returns the tests in a directory of the module, with their text.
func testsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	tests := map[string]string{}
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				start := f.Pos()
				if f.Doc != nil {
					start = f.Doc.Pos()
				}
				tests[f.Name.Name] = string(text[start-parsed.FileStart : f.End()-parsed.FileStart])
			}
		}
	}
	return tests
}
