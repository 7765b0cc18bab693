// A web app in Node that logs people in by kwai: login, renewal, logout. docs/apps.md has
// the commands that make the app at kwai and start this.
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import * as client from 'openid-client'
import { app, fail, home, issuer } from './settings.js'

const redirect_uri = home + '/callback'

// Plain HTTP is for trying out: with https, leave execute out.
const config = await client.discovery(new URL(issuer), app.client_id, app.client_secret, undefined, {
  execute: issuer.startsWith('http:') ? [client.allowInsecureRequests] : [],
}).catch(e => fail(`kwai at ${issuer}: ${e.message} ${e.cause?.code ?? ''}`))

// Sessions lie in memory, by the value of a cookie. A real app keeps them in its database.
const sessions = new Map()

async function login(_request, response) {
  const code_verifier = client.randomPKCECodeVerifier()
  const attempt = { pkceCodeVerifier: code_verifier, expectedState: client.randomState(), expectedNonce: client.randomNonce() }
  setCookie(response, 'attempt', JSON.stringify(attempt))
  return client.buildAuthorizationUrl(config, {
    redirect_uri,
    scope: 'openid profile email groups',
    code_challenge: await client.calculatePKCECodeChallenge(code_verifier),
    code_challenge_method: 'S256',
    state: attempt.expectedState,
    nonce: attempt.expectedNonce,
  }).href
}

async function callback(request, response) {
  const attempt = cookie(request, 'attempt')
  if (!attempt) throw new Error('no cookie of a login that this browser has begun here')
  const tokens = await client.authorizationCodeGrant(config, new URL(request.url, home), JSON.parse(attempt))
  const id = randomUUID()
  sessions.set(id, { claims: tokens.claims(), ...keep(tokens) })
  setCookie(response, 'attempt', '')
  setCookie(response, 'session', id)
  return '/'
}

const keep = tokens => ({ tokens, ends: Date.now() + tokens.expires_in * 1000 - 1000 })

// sessionOf is who is logged in. It renews the tokens when they have expired: so it finds
// out within --access-life that somebody has logged out at kwai, or may no longer come.
async function sessionOf(request) {
  const id = cookie(request, 'session')
  const session = sessions.get(id)
  if (!session || Date.now() < session.ends) return session
  // One at a time: a refresh token is good once.
  session.renewal ??= client.refreshTokenGrant(config, session.tokens.refresh_token)
    .then(tokens => Object.assign(session, keep(tokens), { renewed: (session.renewed ?? 0) + 1 }))
    .finally(() => { session.renewal = undefined })
  try {
    return await session.renewal
  } catch (e) {
    if (e.error !== 'invalid_grant') throw e // kwai can't be reached: try again
    sessions.delete(id)
  }
}

function logout(request) {
  const id = cookie(request, 'session')
  const session = sessions.get(id)
  sessions.delete(id)
  if (!session) return '/'
  return client.buildEndSessionUrl(config, { id_token_hint: session.tokens.id_token, post_logout_redirect_uri: home + '/' }).href
}

async function page(request, response) {
  const session = await sessionOf(request)
  show(response, 200, session, session ? `You are ${session.claims.email}, in ${JSON.stringify(session.claims.groups)}. Renewed: ${session.renewed ?? 0}.` : 'Nobody is logged in.')
}

function show(response, status, session, text) {
  response.writeHead(status, { 'Content-Type': 'text/html; charset=utf-8' })
  response.end(`<!DOCTYPE html><html lang="en"><title>Node app</title><link rel="icon" href="data:,"><p>${text.replace(/[&<]/g, c => `&#${c.charCodeAt()};`)}</p>
    <a href="${session ? 'logout' : 'login'}">Log ${session ? 'out' : 'in'}</a></html>`)
}

const setCookie = (response, name, value) => response.appendHeader('Set-Cookie', `${name}=${encodeURIComponent(value)}; Path=/; HttpOnly; SameSite=Lax`)
const cookie = (request, name) => decodeURIComponent(request.headers.cookie?.split('; ').find(c => c.startsWith(name + '='))?.slice(name.length + 1) ?? '')

const routes = { '/': page, '/login': login, '/callback': callback, '/logout': logout }
createServer(async (request, response) => {
  try {
    const to = await routes[new URL(request.url, home).pathname]?.(request, response)
    if (to) response.writeHead(303, { Location: to }).end()
    else if (!response.writableEnded) response.writeHead(404).end()
  } catch (e) {
    console.error(e)
    // kwai's refusal of a login is for its user. The cause of all else is in the log alone.
    const refused = e instanceof client.AuthorizationResponseError
    show(response, refused ? 400 : 500, null, refused ? `kwai refuses: ${e.error} ${e.error_description ?? ''}` : 'That did not work. Try again.')
  }
}).listen(new URL(home).port, 'localhost', () => console.log('Open ' + home))
