// A session with the client that @hey-api/openapi-ts makes of /openapi.yaml.
import assert from 'node:assert/strict'
import { client } from './hey/client.gen.js'
import { getUser, listSessions, login, logout, renewTokens } from './hey/index.js'

const [email, password, server] = process.argv.slice(2) as [string, string, string]
assert.equal(client.getConfig().baseUrl, server) // from the description

const wrong = await login({ body: { username: email, password: 'the wrong one' } })
assert.equal(wrong.response.status, 401)
assert.equal(wrong.error?.detail, 'The address or the password is wrong.')

const first = await login({ body: { username: email, password }, throwOnError: true })
const user = await getUser({ auth: first.data.access_token, throwOnError: true })
assert.equal(user.data.email, email)

const second = await renewTokens({ body: { refresh_token: first.data.refresh_token }, throwOnError: true })
const auth = second.data.access_token
assert.notEqual(auth, first.data.access_token)
const sessions = await listSessions({ auth, throwOnError: true })
assert.deepEqual(sessions.data.map(s => s.current), [true])

await logout({ auth, body: { refresh_token: second.data.refresh_token }, throwOnError: true })
assert.equal((await getUser({ auth })).response.status, 401)
console.log('done')
