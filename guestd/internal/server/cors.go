package server

import "net/http"

const (
	allowedMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	preflightAge   = "7200" // seconds; the most that browsers accept
	exposedHeaders = "Connect-Content-Encoding, Connect-Accept-Encoding, Connect-Protocol-Version, Grpc-Status, Grpc-Message, " +
		"Grpc-Status-Details-Bin, Location, Cache-Control, X-Content-Type-Options, X-Envd-Version, ETag"
)

// allowAnyOrigin lets browsers call from every page: the token is what protects the sandbox.
func allowAnyOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			header.Set("Access-Control-Allow-Origin", "*")
			header.Set("Access-Control-Allow-Methods", allowedMethods)
			if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
				header.Set("Access-Control-Allow-Headers", asked)
			}
			header.Set("Access-Control-Max-Age", preflightAge)
			header.Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header.Add("Vary", "Origin")
		if r.Header.Get("Origin") != "" {
			header.Set("Access-Control-Allow-Origin", "*")
			header.Set("Access-Control-Expose-Headers", exposedHeaders)
		}
		next.ServeHTTP(w, r)
	})
}
