// An OpenID provider for tests: the certified oidc-provider, on loopback, with
// fixed clients and nothing on disk.
//
//   oidc-provider [PORT]
//
// The first line of its output is its issuer. POST /rotate takes a new signing
// key for each algorithm; with ?keep=1 the one before is published on.

import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { Provider } from 'oidc-provider';

const accounts = {
  alice: { tenant: 'acme', groups: ['sales', 'staff'] },
  bob: { tenant: 'globex', groups: ['staff'] },
};

// A resource in the request decides of which kind the access token is.
const resources = {
  'https://shop.test/rs256': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } },
  'https://shop.test/es256': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } },
  'https://shop.test/opaque': { accessTokenFormat: 'opaque' },
};

const clients = [
  {
    client_id: 'shop-web',
    client_secret: 'shop-web-secret',
    grant_types: ['authorization_code'],
    redirect_uris: ['http://127.0.0.1/callback'],
  },
  {
    client_id: 'shop-batch',
    client_secret: 'shop-batch-secret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  },
  {
    client_id: 'shop-api', // a resource server: it introspects
    client_secret: 'shop-api-secret',
    grant_types: [],
    redirect_uris: [],
    response_types: [],
  },
];

let generation = 0;

// newKeys returns a key for each algorithm, in a generation of their own.
function newKeys() {
  generation += 1;
  const { privateKey: rsa } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const { privateKey: ec } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return [
    { ...rsa.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: `rs256-${generation}` },
    { ...ec.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: `es256-${generation}` },
  ];
}

// newProvider returns a provider that signs with the first of these keys.
function newProvider(issuer, keys) {
  return new Provider(issuer, {
    clients,
    jwks: { keys },
    cookies: { keys: ['oidc-provider'] },
    claims: { openid: ['sub'], profile: ['tenant', 'groups'] },
    scopes: ['openid', 'profile', 'orders:read', 'orders:write'],
    conformIdTokenClaims: false, // the ID token has the claims of its scopes
    findAccount: (ctx, sub) => accounts[sub] && { accountId: sub, claims: () => ({ sub, ...accounts[sub] }) },
    extraTokenClaims: (ctx, token) => accounts[token.accountId] || { tenant: 'acme' },
    ttl: { AccessToken: 300, ClientCredentials: 300, IdToken: 300, Session: 3600, Interaction: 600, Grant: 3600 },
    features: {
      clientCredentials: { enabled: true },
      introspection: {
        enabled: true,
        allowedPolicy: (ctx, client, token) => client.clientId === 'shop-api' || client.clientId === token.clientId,
      },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => {
          if (!resources[resource]) throw new Error(`no such resource: ${resource}`);
          return { scope: 'orders:read orders:write', audience: 'shop-api', ...resources[resource] };
        },
      },
    },
  });
}

const server = createServer();
server.listen(Number(process.argv[2] || 0), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  let keys = newKeys();
  let answer = newProvider(issuer, keys).callback();
  server.on('request', (request, response) => {
    const url = new URL(request.url, issuer);
    if (request.method !== 'POST' || url.pathname !== '/rotate') {
      answer(request, response);
      return;
    }
    keys = [...newKeys(), ...(url.searchParams.has('keep') ? keys : [])];
    // What is stored (sessions, grants, tokens) outlives the provider.
    answer = newProvider(issuer, keys).callback();
    response.end();
  });
  console.log(issuer);
});
process.on('SIGTERM', () => process.exit(0));
