// A session with openapi-fetch and the types that openapi-typescript makes of
// /openapi.yaml. To send a form, as its manual has it, takes one option.
import assert from 'node:assert/strict'
import createClient from 'openapi-fetch'
import type { paths } from './schema.js'

const [email, password, server] = process.argv.slice(2) as [string, string, string]
const client = createClient<paths>({
  baseUrl: server,
  headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
})

const wrong = await client.POST('/api/v1/auth/login', { body: { username: email, password: 'the wrong one' } })
assert.equal(wrong.response.status, 401)
assert.equal(wrong.error?.detail, 'The address or the password is wrong.')

const first = await client.POST('/api/v1/auth/login', { body: { username: email, password } })
assert(first.data)
const user = await client.GET('/api/v1/auth/user', { headers: { Authorization: `Bearer ${first.data.access_token}` } })
assert.equal(user.data?.email, email)

const second = await client.POST('/api/v1/auth/access_token', { body: { refresh_token: first.data.refresh_token } })
assert(second.data)
assert.notEqual(second.data.access_token, first.data.access_token)
const headers = { Authorization: `Bearer ${second.data.access_token}` }
const sessions = await client.GET('/api/v1/auth/sessions', { headers })
assert.deepEqual(sessions.data?.map(s => s.current), [true])

const out = await client.POST('/api/v1/auth/logout', { headers, body: { refresh_token: second.data.refresh_token } })
assert(out.response.ok)
assert.equal((await client.GET('/api/v1/auth/user', { headers })).response.status, 401)
console.log('done')
