// Answers OPAQUE steps by @serenity-kit/opaque: one JSON request a line on standard input, one answer a line on standard
// output. Its first argument is the directory that holds node_modules.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const opaque = createRequire(process.argv[2] + "/")("@serenity-kit/opaque");
await opaque.ready;

// What docs/protocol.md fixes: Argon2id with 3 passes, 64 MiB, 4 lanes.
const keyStretching = { "argon2id-custom": { iterations: 3, memory: 65536, parallelism: 4 } };

const steps = {
  createSetup: () => ({ serverSetup: opaque.server.createSetup() }),
  startRegistration: (a) => opaque.client.startRegistration(a),
  finishRegistration: (a) => opaque.client.finishRegistration({ ...a, keyStretching }),
  startLogin: (a) => opaque.client.startLogin(a),
  finishLogin: (a) => opaque.client.finishLogin({ ...a, keyStretching }) ?? null,
  createRegistrationResponse: (a) => opaque.server.createRegistrationResponse(a),
  serverStartLogin: (a) => opaque.server.startLogin(a),
  serverFinishLogin: (a) => opaque.server.finishLogin(a),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { step, args } = JSON.parse(line);
  let answer;
  try {
    answer = { ok: steps[step](args) };
  } catch (e) {
    answer = { error: String(e) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
