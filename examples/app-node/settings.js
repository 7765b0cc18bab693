// The arguments, and the file that the first one names.
import { readFileSync } from 'node:fs'

const args = process.argv.slice(2)
export const [file, issuer = 'http://localhost:8080', home = 'http://localhost:3000'] = args
if (args.length < 1 || args.length > 3) fail(`usage: server.js FILE [ISSUER [HOME]]
FILE has what kwai app create printed, ISSUER is kwai's public URL (http://localhost:8080), HOME this app's (http://localhost:3000)`)

export const app = read()

function read() {
  try {
    const app = JSON.parse(readFileSync(file, 'utf8'))
    if (app?.client_id) return app
  } catch (e) {
    if (e.code) fail(e.message) // there is no such file
  }
  fail(file + ' does not hold what kwai app create prints')
}

export function fail(text) {
  console.error(text)
  process.exit(1)
}
