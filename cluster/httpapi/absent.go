package httpapi

import (
	"net/http"
)

// absentRoutes answers for the parts of Consul's API that are not here. What is to come is
// 501: a 404 would be read as "this key does not exist" by clients of the KV store. What
// will never be is 404, as Consul answers for what an edition lacks.
func absentRoutes() []route {
	var routes []route
	for _, p := range []struct{ path, what string }{
		{"/v1/kv/", "the KV store"},
		{"/v1/txn", "transactions"},
		{"/v1/session/", "sessions"},
		{"/v1/event/", "user events"},
		{"/v1/query", "prepared queries"},
		{"/v1/query/", "prepared queries"},
		{"/v1/snapshot", "snapshots"},
		{"/v1/operator/", "this operator endpoint"},
		{"/v1/coordinate/", "network coordinates"},
	} {
		routes = append(routes, refusal(p.path, http.StatusNotImplemented,
			"not there yet: this version of meibo does not have "+p.what+" ("+p.path+")"))
	}
	for _, p := range []struct{ path, what string }{
		{"/v1/connect/", "Consul's service mesh"}, {"/v1/agent/connect/", "Consul's service mesh"},
		{"/v1/config", "the configuration entries of Consul's service mesh"}, {"/v1/config/", "the configuration entries of Consul's service mesh"},
		{"/v1/discovery-chain/", "Consul's service mesh"}, {"/v1/catalog/connect/", "Consul's service mesh"},
		{"/v1/health/connect/", "Consul's service mesh"}, {"/v1/health/ingress/", "Consul's service mesh"},
		{"/v1/catalog/gateway-services/", "Consul's service mesh"}, {"/v1/exported-services", "Consul's cluster peering"},
		{"/v1/peering/", "Consul's cluster peering"}, {"/v1/peerings", "Consul's cluster peering"}, {"/v1/peering", "Consul's cluster peering"},
		{"/v1/internal/", "Consul's own UI"}, {"/v1/namespace", "Consul's namespaces"}, {"/v1/namespaces", "Consul's namespaces"},
		{"/v1/partition", "Consul's partitions"}, {"/v1/partitions", "Consul's partitions"},
	} {
		routes = append(routes, refusal(p.path, http.StatusNotFound, "meibo has no part that answers "+p.path+": it leaves out "+p.what+" on purpose"))
	}
	return append(routes, refusal("/v1/acl/", http.StatusUnauthorized, "ACL support disabled"))
}

func refusal(path string, status int, text string) route {
	return route{
		path:    path,
		methods: []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete},
		handle:  func(w http.ResponseWriter, _ *http.Request) { writeError(w, &Error{Status: status, Text: text}) },
	}
}
