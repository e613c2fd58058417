// Plays members of MLS groups with ts-mls. Reads one request a line from standard
// input and writes one answer a line to standard output, both JSON; bytes are base64.
//
//   node peer.mjs DIR      DIR holds node_modules
//
//   {"op": "...", "member": "...", ...}  ->  {"ok": ...} or {"error": "..."}
import { createRequire } from "node:module"
import { createInterface } from "node:readline"
import { pathToFileURL } from "node:url"

const { resolve } = createRequire(process.argv[2] + "/from.js")
const load = (name) => import(pathToFileURL(resolve(name)))
const mls = await load("ts-mls")
// Not exported by the package's main entry, and needed to write a GroupInfo with an
// external_pub as RFC 9420 has it.
const { createGroupInfo } = await load("ts-mls/createCommit.js")
const { ratchetTreeEncoder, decodeRatchetTree } = await load("ts-mls/ratchetTree.js")
const { encode } = await load("ts-mls/codec/tlsEncoder.js")

const suiteName = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"
const suite = await mls.getCiphersuiteImpl(mls.getCiphersuiteFromName(suiteName))
const members = new Map()

const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"))
const text = (b) => Buffer.from(b).toString("base64")
const frame = (m) => text(mls.encodeMlsMessage({ version: "mls10", ...m }))

function parse(message) {
  const decoded = mls.decodeMlsMessage(bytes(message), 0)
  if (!decoded) throw new Error("the message does not decode")
  return decoded[0]
}

const typeNames = new Map(Object.entries(mls.defaultExtensionTypes).map(([name, n]) => [n, name]))
const extension = ({ type, data }) => ({ extensionType: typeNames.get(type) ?? type, extensionData: bytes(data) })

const reinit = (groupId) => ({
  proposalType: "reinit",
  reinit: { groupId: bytes(groupId), version: "mls10", cipherSuite: suiteName, extensions: [] },
})

const psk = (id) => ({
  proposalType: "psk",
  psk: { preSharedKeyId: { ...id, pskNonce: suite.rng.randomBytes(suite.kdf.size) } },
})

function proposal({ add, remove, psk: pskId, extensions, reInit }) {
  if (add) return { proposalType: "add", add: { keyPackage: parse(add).keyPackage } }
  if (remove !== undefined && remove !== null) return { proposalType: "remove", remove: { removed: remove } }
  if (pskId) return psk({ psktype: "external", pskId: bytes(pskId) })
  if (extensions)
    return {
      proposalType: "group_context_extensions",
      groupContextExtensions: { extensions: extensions.map(extension) },
    }
  if (reInit) return reinit(reInit)
  throw new Error("no proposal")
}

// byValue lists the proposals that a Commit brings itself.
function byValue(m, { adds, removes, psks, resumptionPSK, extensions, reInit }) {
  const out = []
  if (extensions) out.push(proposal({ extensions }))
  for (const remove of removes ?? []) out.push(proposal({ remove }))
  for (const add of adds ?? []) out.push(proposal({ add }))
  for (const id of psks ?? []) out.push(proposal({ psk: id }))
  if (resumptionPSK !== undefined && resumptionPSK !== null)
    out.push(
      psk({
        psktype: "resumption",
        usage: "application",
        pskGroupId: m.state.groupContext.groupId,
        pskEpoch: BigInt(resumptionPSK),
      }),
    )
  if (reInit) out.push(proposal({ reInit }))
  return out
}

const pskIndex = (m) => mls.makePskIndex(m.state, m.psks)

const ops = {
  async new(_, { member }) {
    members.set(member, { name: member, signer: await suite.signature.keygen(), psks: {} })
  },

  async keyPackage(m) {
    const now = BigInt(Math.floor(Date.now() / 1000))
    const capabilities = { ...mls.defaultCapabilities(), ciphersuites: [suiteName] }
    m.keyPackage = await mls.generateKeyPackageWithKey(
      { credentialType: "basic", identity: new TextEncoder().encode(m.name) },
      capabilities,
      { notBefore: now - 3600n, notAfter: now + 86400n },
      [],
      m.signer,
      suite,
    )
    return frame({ wireformat: "mls_key_package", keyPackage: m.keyPackage.publicPackage })
  },

  async addPSK(m, { id, secret }) {
    m.psks[id] = bytes(secret)
  },

  async create(m, { groupID }) {
    const { publicPackage, privatePackage } = m.keyPackage
    m.state = await mls.createGroup(bytes(groupID), publicPackage, privatePackage, [], suite)
  },

  async join(m, { welcome, tree }) {
    const { publicPackage, privatePackage } = m.keyPackage
    const ratchetTree = tree ? decodeRatchetTree(bytes(tree), 0)[0] : undefined
    const index = mls.makePskIndex(undefined, m.psks)
    m.state = await mls.joinGroup(parse(welcome).welcome, publicPackage, privatePackage, index, suite, ratchetTree)
  },

  async joinExternal(m, { groupInfo, tree, resync, asIs }) {
    const { publicPackage, privatePackage } = m.keyPackage
    const gi = parse(groupInfo).groupInfo
    if (!asIs) readExternalPub(gi)
    const ratchetTree = tree ? decodeRatchetTree(bytes(tree), 0)[0] : undefined
    const again = resync !== undefined && resync !== null
    const r = await mls.joinGroupExternal(gi, publicPackage, privatePackage, again, suite, ratchetTree)
    m.state = r.newState
    return frame({ wireformat: "mls_public_message", publicMessage: r.publicMessage })
  },

  async proposeJoin(m, { groupInfo }) {
    const { publicPackage, privatePackage } = m.keyPackage
    const gi = parse(groupInfo).groupInfo
    return text(mls.encodeMlsMessage(await mls.proposeAddExternal(gi, publicPackage, privatePackage, suite)))
  },

  async commit(m, q) {
    const r = await mls.createCommit(
      { state: m.state, cipherSuite: suite, pskIndex: pskIndex(m) },
      { extraProposals: byValue(m, q), wireAsPublicMessage: !q.private, ratchetTreeExtension: !q.noTree },
    )
    m.state = r.newState
    return {
      commit: text(mls.encodeMlsMessage(r.commit)),
      welcome: r.welcome && frame({ wireformat: "mls_welcome", welcome: r.welcome }),
    }
  },

  async propose(m, q) {
    const r = await mls.createProposal(m.state, !q.private, proposal(q), suite)
    m.state = r.newState
    return text(mls.encodeMlsMessage(r.message))
  },

  async process(m, { message }) {
    const decoded = parse(message)
    // Not mls.processMessage, which loses the PSKs of private messages.
    const r =
      decoded.wireformat === "mls_public_message"
        ? await mls.processPublicMessage(m.state, decoded.publicMessage, pskIndex(m), suite)
        : await mls.processPrivateMessage(m.state, decoded.privateMessage, pskIndex(m), suite)
    m.state = r.newState
    return r.kind === "applicationMessage" ? text(r.message) : ""
  },

  async encrypt(m, { text: plain, padding }) {
    const paddingConfig = { kind: "padUntilLength", padUntilLength: padding }
    const state = { ...m.state, clientConfig: { ...m.state.clientConfig, paddingConfig } }
    const r = await mls.createApplicationMessage(state, bytes(plain), suite)
    m.state = r.newState
    return frame({ wireformat: "mls_private_message", privateMessage: r.privateMessage })
  },

  async groupInfo(m, { noTree, asIs }) {
    const make = noTree ? mls.createGroupInfoWithExternalPub : mls.createGroupInfoWithExternalPubAndRatchetTree
    const groupInfo = asIs ? await make(m.state, [], suite) : await conformantGroupInfo(m.state, noTree)
    return frame({ wireformat: "mls_group_info", groupInfo })
  },

  async tree(m) {
    return text(encode(ratchetTreeEncoder)(m.state.ratchetTree))
  },

  async state(m, { label, context, length }) {
    const { groupContext, keySchedule, ratchetTree, groupActiveState } = m.state
    const leaves = ratchetTree.flatMap((node, i) =>
      node?.nodeType === "leaf"
        ? [{ index: i / 2, identity: new TextDecoder().decode(node.leaf.credential.identity) }]
        : [],
    )
    const exported = await mls.mlsExporter(
      keySchedule.exporterSecret,
      label,
      new TextEncoder().encode(context),
      length,
      suite,
    )
    return {
      epoch: Number(groupContext.epoch),
      authenticator: text(keySchedule.epochAuthenticator),
      exported: text(exported),
      members: leaves,
      active: groupActiveState.kind === "active",
    }
  },
}

// conformantGroupInfo makes a GroupInfo whose external_pub is an HPKEPublicKey, that
// is opaque<V> (RFC 9420 12.4.3.2). ts-mls 1.6.4 leaves out the length.
async function conformantGroupInfo(state, noTree) {
  const pair = await suite.hpke.deriveKeyPair(state.keySchedule.externalSecret)
  const key = await suite.hpke.exportPublicKey(pair.publicKey)
  const extensions = [{ extensionType: "external_pub", extensionData: new Uint8Array([key.length, ...key]) }]
  if (!noTree)
    extensions.push({ extensionType: "ratchet_tree", extensionData: encode(ratchetTreeEncoder)(state.ratchetTree) })
  return createGroupInfo(state.groupContext, state.confirmationTag, state, extensions, suite)
}

// readExternalPub makes ts-mls find the key without its length. The extensions stay
// as they are, since they are signed.
function readExternalPub(groupInfo) {
  const find = Array.prototype.find
  groupInfo.extensions.find = function (f) {
    const e = find.call(this, f)
    return e?.extensionType === "external_pub" ? { ...e, extensionData: e.extensionData.slice(1) } : e
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    const q = JSON.parse(line)
    answer = { ok: (await ops[q.op](members.get(q.member), q)) ?? null }
  } catch (e) {
    answer = { error: String(e?.stack ?? e).split("\n").slice(0, 2).join(" ") }
  }
  process.stdout.write(JSON.stringify(answer) + "\n")
}
