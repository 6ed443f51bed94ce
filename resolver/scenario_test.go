package resolver_test

import (
	"testing"

	"go.uber.org/goleak"

	"meibo/resolver/resolvertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestScenarios(t *testing.T) { resolvertest.RunScenarios(t, "testdata/scenarios") }
