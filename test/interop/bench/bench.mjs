// Measures ts-mls. Reads one request a line and writes one answer a line, like
// peer.mjs.
//
//   node bench.mjs DIR     DIR holds node_modules
//
//   {"op": "build", "n": 10}                     the group that all else is about
//   {"op": "guest"}                              ->  {"ok": KeyPackage in base64}
//   {"op": "invite", "full": "base64", "unmerged": "base64"}  Welcomes for that
//   {"op": "measure", "name": "join", "ms": 50}  ->  {"ok": {"ns": 1234567}}
import { createRequire } from "node:module"
import { createInterface } from "node:readline"
import { pathToFileURL } from "node:url"

const { resolve } = createRequire(process.argv[2] + "/from.js")
const mls = await import(pathToFileURL(resolve("ts-mls")))

const suiteName = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"
const suite = await mls.getCiphersuiteImpl(mls.getCiphersuiteFromName(suiteName))
const capabilities = { ...mls.defaultCapabilities(), ciphersuites: [suiteName] }
const plain = new Uint8Array(1024)
let group

const frame = (m) => mls.encodeMlsMessage({ version: "mls10", ...m })
const parse = (b) => mls.decodeMlsMessage(b, 0)[0]

function client(name) {
  const now = BigInt(Math.floor(Date.now() / 1000))
  const lifetime = { notBefore: now - 3600n, notAfter: now + 86400n }
  const credential = { credentialType: "basic", identity: new TextEncoder().encode(name) }
  return mls.generateKeyPackage(credential, capabilities, lifetime, [], suite)
}

// commit adds what keyPackages hold; without any it has a path.
async function commit(state, keyPackages) {
  const extraProposals = keyPackages.map((b) => ({
    proposalType: "add",
    add: { keyPackage: parse(b).keyPackage },
  }))
  const r = await mls.createCommit(
    { state, cipherSuite: suite },
    { extraProposals, wireAsPublicMessage: true, ratchetTreeExtension: true },
  )
  return {
    state: r.newState,
    commit: mls.encodeMlsMessage(r.commit),
    welcome: r.welcome && frame({ wireformat: "mls_welcome", welcome: r.welcome }),
  }
}

const join = (welcome, { publicPackage, privatePackage }) =>
  mls.joinGroup(parse(welcome).welcome, publicPackage, privatePackage, mls.emptyPskIndex, suite)

const follow = async (state, message) =>
  (await mls.processPublicMessage(state, parse(message).publicMessage, mls.emptyPskIndex, suite)).newState

// encrypt lets either of two copies of the creator send; nobody listens to the talker.
async function encrypt(from) {
  const r = await mls.createApplicationMessage(group[from], plain, suite)
  group[from] = r.newState
  group.message = frame({ wireformat: "mls_private_message", privateMessage: r.privateMessage })
}

async function decrypt() {
  const { privateMessage } = parse(group.message)
  group.receiver = (await mls.processPrivateMessage(group.receiver, privateMessage, mls.emptyPskIndex, suite)).newState
}

async function build({ n }) {
  const clients = []
  for (let i = 0; i < n; i++) clients.push(await client("member-" + i))
  const messages = clients.map((c) => frame({ wireformat: "mls_key_package", keyPackage: c.publicPackage }))
  const newcomer = frame({ wireformat: "mls_key_package", keyPackage: (await client("newcomer")).publicPackage })
  const { publicPackage, privatePackage } = clients[0]
  const id = new TextEncoder().encode("group")
  const alone = await mls.createGroup(id, publicPackage, privatePackage, [], suite)
  const first = await commit(alone, messages.slice(1))
  const second = await commit(first.state, [])
  const creator = second.state
  const member = await follow(await join(first.welcome, clients[1]), second.commit)
  const added = (await commit(creator, [newcomer])).commit
  const roles = { creator, member, sender: creator, talker: creator, receiver: member }
  group = { ...roles, newcomer, added, welcome: first.welcome, joiner: clients[1] }
}

// A state is never changed in place, so that every run begins where it should.
const operations = {
  "add-commit": { run: () => commit(group.creator, [group.newcomer]) },
  join: { run: () => join(group.welcome, group.joiner) },
  "join, full tree": { run: () => join(group.full, group.guest) },
  "join, unmerged": { run: () => join(group.unmerged, group.guest) },
  "process add-commit": { run: () => follow(group.member, group.added) },
  "update-commit": { run: () => commit(group.creator, []) },
  "encrypt 1 KiB": { run: () => encrypt("talker") },
  "decrypt 1 KiB": { reset: () => encrypt("sender"), run: decrypt },
}

async function measure({ name, ms }) {
  const operation = operations[name]
  if (!operation) return { ns: 0 }
  let spent = 0
  let runs = 0
  const begin = performance.now()
  while (runs === 0 || (spent < ms && performance.now() - begin < 5 * ms)) {
    await operation.reset?.()
    const start = performance.now()
    await operation.run()
    spent += performance.now() - start
    runs++
  }
  return { ns: Math.round((spent * 1e6) / runs) }
}

// guest makes the client that joins the group that invite brings.
async function guest() {
  group.guest = await client("guest")
  return Buffer.from(frame({ wireformat: "mls_key_package", keyPackage: group.guest.publicPackage })).toString("base64")
}

async function invite({ full, unmerged }) {
  group.full = new Uint8Array(Buffer.from(full, "base64"))
  group.unmerged = new Uint8Array(Buffer.from(unmerged, "base64"))
}

const ops = { build, guest, invite, measure }
for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    const q = JSON.parse(line)
    answer = { ok: (await ops[q.op](q)) ?? null }
  } catch (e) {
    answer = { error: String(e?.stack ?? e).split("\n").slice(0, 2).join(" ") }
  }
  process.stdout.write(JSON.stringify(answer) + "\n")
}
