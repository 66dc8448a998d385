# Three images from one build:
#   chancery        the control plane
#   chancery-envoy  an agent with its Envoy: gateway or sidecar
#   shop            the demo's services and token issuer
# All run as user 65532, who alone can read the join tokens and keys in the
# volumes that some of them share.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=(devel)
RUN --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X 'main.buildVersion=$VERSION'" -o /bin/ ./cmd/chancery ./examples/shop
# A new volume takes owner and mode from the directory that it is mounted on.
RUN mkdir -m 700 -p /state/chancery /outside/certificates

FROM scratch AS chancery
COPY --from=build /bin/chancery /usr/local/bin/chancery
COPY --from=build --chown=65532:65532 /state/ /var/lib/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/chancery"]

FROM envoyproxy/envoy:distroless-v1.40.0 AS chancery-envoy
COPY --from=build /bin/chancery /usr/local/bin/chancery
COPY --from=build --chown=65532:65532 /state/ /var/lib/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/chancery"]

FROM scratch AS shop
COPY --from=build /bin/shop /usr/local/bin/shop
COPY --from=build --chown=65532:65532 /outside/ /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/shop"]
