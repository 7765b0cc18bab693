// A web app for one visitor, over openid-client 5: node FILE HOME ISSUER CLIENT_ID CLIENT_SECRET
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { Issuer, generators } from 'openid-client-5'

const [home, address, client_id, client_secret] = process.argv.slice(2)
const issuer = await Issuer.discover(address)
const redirect_uri = home + '/callback'
const client = new issuer.Client({ client_id, client_secret, redirect_uris: [redirect_uri], response_types: ['code'] })
let attempt, tokens

const routes = {
  '/login'() {
    attempt = { code_verifier: generators.codeVerifier(), state: generators.state(), nonce: generators.nonce(), max_age: 3600 }
    return client.authorizationUrl({
      redirect_uri, scope: 'openid profile email groups', state: attempt.state, nonce: attempt.nonce, max_age: attempt.max_age,
      code_challenge: generators.codeChallenge(attempt.code_verifier), code_challenge_method: 'S256',
    })
  },
  async '/callback'(request) {
    tokens = await client.callback(redirect_uri, client.callbackParams(request), attempt)
    return home + '/'
  },
  async '/renew'() {
    const before = tokens
    tokens = await client.refresh(before)
    assert.notEqual(tokens.access_token, before.access_token)
    assert.notEqual(tokens.refresh_token, before.refresh_token)
    assert.equal(tokens.claims().auth_time, before.claims().auth_time)
    return home + '/'
  },
  async '/revoke'() {
    await client.revoke(tokens.refresh_token)
    await assert.rejects(client.userinfo(tokens))
    return home + '/'
  },
  async '/over'(_, response) {
    await assert.rejects(client.userinfo(tokens))
    await assert.rejects(client.refresh(tokens), { error: 'invalid_grant' })
    page(response, 'it is over')
  },
  '/logout': () => client.endSessionUrl({ id_token_hint: tokens, post_logout_redirect_uri: home + '/out', state: 'away' }),
  '/out': (request, response) => page(response, 'out: ' + request.url),
  // Asked for beside the page of a failure, which names no icon.
  '/favicon.ico'(_, response) { response.writeHead(204).end() },
  async '/'(_, response) {
    if (!tokens) return page(response, 'Nobody is logged in.')
    const info = await client.userinfo(tokens)
    assert.equal(info.sub, tokens.claims().sub)
    assert.deepEqual(info.groups, tokens.claims().groups)
    page(response, `You are ${info.email}, in ${JSON.stringify(info.groups)}.`)
  },
}

const page = (response, text) => {
  response.setHeader('Content-Type', 'text/html; charset=utf-8')
  response.end(`<!DOCTYPE html><html lang="en"><title>App</title><link rel="icon" href="data:,"><p>${text}</p></html>`)
}

createServer(async (request, response) => {
  try {
    const to = await routes[new URL(request.url, home).pathname](request, response)
    if (to) response.writeHead(303, { Location: to }).end()
  } catch (e) {
    console.error(e)
    response.writeHead(500).end(e.stack)
  }
}).listen(new URL(home).port, 'localhost')
