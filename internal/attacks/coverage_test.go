package attacks_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
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
}

func by(tests ...string) row { return row{tests: tests} }

// catalogue are the numbers of all attacks: J on the form and signature of
// tokens, C on claims, K on keys and introspection, P on paths and routing, H on
// headers, F on framing and the filter, R on policies, B on passwords and API
// keys.
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
	"J01": by("extauthz/credential.TestMalformedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J02": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J03": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J04": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J05": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J06": by("extauthz/credential.TestForgedTokens"),
	"J07": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J08": by("extauthz/credential.TestForgedTokens", "extauthz/credential.TestKeySetsAttacked"),
	"J10": by("extauthz/credential.TestKeySetsAttacked", "extauthz/credential.TestOneSignatureIsTried"),
	"J11": by("extauthz/credential.TestKeySetsAttacked", "extauthz/credential.TestOneSignatureIsTried"),
	"J12": by("extauthz/credential.TestKeySetsAttacked"),
	"J13": by("extauthz/credential.TestKeySetsAttacked"),
	"J14": by("extauthz/credential.TestKeySetsAttacked", "extauthz/credential.TestLargestKeyIsNoBomb"),
	"J15": by("extauthz/credential.TestMalformedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J16": by("extauthz/credential.TestMalformedTokens"),
	"J18": by("extauthz/credential.TestMalformedTokens", "extauthz/credential.TestVerifyAccepts"),
	"J19": by("extauthz/credential.TestMalformedTokens"),
	"J20": by("extauthz/credential.TestForgedTokens"),
	"J22": by("extauthz/credential.TestMalformedTokens", "extauthz/credential.TestVerifyRefuses"),
	"J23": by("extauthz/credential.TestForgedTokens"),
	"J24": by("extauthz/credential.TestForgedTokens"),
	"J25": by("extauthz/credential.TestMalformedTokens"),
	"J26": by("extauthz/credential.TestBigTokens", "extauthz/credential.TestMalformedTokens", "extauthz/credential.TestRefusingIsCheap"),
	"J27": by("extauthz/credential.TestMalformedTokens"),
	"J28": by("extauthz/credential.TestBigTokens", "extauthz/credential.TestFindRefuses", "extauthz/credential.TestRefusingIsCheap", "extauthz/credential.TestVerifyRefuses"),
	"J29": by("extauthz/credential.TestFindRefuses", "internal/attacks.TestTwoCredentials"),
	"C01": by("extauthz/credential.TestVerifyAccepts", "extauthz/credential.TestVerifyRefuses"),
	"C02": by("extauthz/credential.TestTokenLifetime", "extauthz/credential.TestVerifyRefuses"),
	"C03": by("extauthz/credential.TestVerifyAtTheEdges"),
	"C04": by("extauthz/credential.TestNothingIsNormalized", "extauthz/credential.TestVerifyRefuses"),
	"C05": by("extauthz/credential.TestBigTokens", "extauthz/credential.TestVerifyRefuses"),
	"C06": {why: "a Passport has one audience, the trust domain, whatever audiences its token had; who may call with it is what rules say"},
	"C07": by("extauthz/credential.TestTokenTypes", "extauthz/credential.TestVerifyRefuses"),
	"C08": by("extauthz/credential.TestTokenTypes"),
	"C09": by("extauthz.TestPassportOpensNoGateway", "extauthz/credential.TestPassportFromOutside", "extauthz/credential.TestVerifyRefuses"),
	"C10": by("extauthz/credential.TestTokenTypes", "extauthz/credential.TestVerifyRefuses"),
	"C12": by("extauthz/credential.TestNothingIsNormalized", "extauthz/credential.TestVerifyRefuses"),
	"C13": by("extauthz/credential.TestEmailAsUser"),
	"C14": by("extauthz/credential.TestNothingIsNormalized", "extauthz/credential.TestVerifyRefuses"),
	"C15": by("extauthz/credential.TestVerifyRefuses"),
	"C16": by("extauthz/credential.TestClaimPath"),
	"C17": by("extauthz/credential.TestIssuersAreApart", "extauthz/credential.TestMatch", "extauthz.TestProvidersSpeakForTheirTenants", "extauthz.TestGatewayLetsInItsTenants", "extauthz/model.TestDifferential"),
	"C18": by("extauthz.TestIntrospection", "extauthz/credential.TestBoundToken", "extauthz/credential.TestIntrospectionRefuses", "extauthz/credential.TestVerifyRefuses"),
	"K01": by("extauthz.TestFloods", "extauthz/provider.TestWhenKeysAreFetched"),
	"K03": by("extauthz/provider.TestRotation"),
	"K04": by("extauthz/provider.TestKeysThatCannotBeFetched", "breaker.TestGetJSONRefuses"),
	"K05": by("extauthz/provider.TestKeysThatCannotBeFetched", "extauthz/provider.TestOutage", "extauthz.TestUndecidableIsDenied"),
	"K06": by("extauthz/provider.TestRotation"),
	"K07": by("extauthz/provider.TestPrivateProviders", "mesh.TestCheckAddress"),
	"K08": by("extauthz/provider.TestKeysThatCannotBeFetched"),
	"K09": by("extauthz.TestIntrospection", "extauthz/credential.TestIntrospectionRefuses", "extauthz/introspection.TestAnswers"),
	"K10": by("extauthz.TestOpaqueTokens", "extauthz/introspection.TestIntrospect"),
	"K12": by("extauthz/introspection.TestOtherTokens"),
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
	"H09": by("internal/attacks.TestHTTP2", "internal/attacks.TestNoHeaders"),
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
	"R11": by("extauthz.TestCacheEnds", "extauthz.TestRevokedCredentialIsRefused"),
	"R12": by("extauthz/policy.TestMissingDenies", "extauthz/policy.TestEval", "internal/attacks.TestSeveralValues"),
	"B01": by("extauthz/credential.TestLongPasswords"),
	"B02": by("extauthz/credential.TestRememberedPasswords"),
	"B03": by("extauthz.TestRefusalsAreTheSame", "extauthz/credential.TestFindRefuses"),
	"B04": by("extauthz.TestRefusalsAreTheSame", "extauthz/credential.TestNewUsersRefuses", "extauthz/credential.TestPasswords"),
	"B05": by("extauthz/credential.TestUnknownUsersCostTheSame"),
	"B06": by("extauthz.TestGuessesLockNobodyOut", "extauthz/credential.TestHashesAtOnce", "extauthz/credential.TestThrottledPasswords"),
	"B07": by("extauthz.TestRefusalsAreTheSame", "extauthz/credential.TestAPIKeyRefused", "extauthz/credential.TestFindRefuses"),
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
	known := map[string][]string{}
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
			if !slices.Contains(known[dir], test) {
				t.Errorf("%s: there is no %s", id, name)
			}
		}
	}
	for id := range ids {
		if row := coverage[id]; (len(row.tests) == 0) == (row.why == "") {
			t.Errorf("%s has no test and no reason, or both", id)
		}
	}
}

// testsOf returns the names of the tests in a directory of the module.
func testsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}
