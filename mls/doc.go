// Package mls is an engine for Messaging Layer Security (RFC 9420), cipher suite
// 0x0001 (MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519), built on the standard
// library alone.
//
// A Group is one member's state. It is created (CreateGroup), joined by a Welcome
// (JoinGroup) or by an external Commit (JoinExternal); it changes by Commits, own
// ones (Commit, Merge) or others' (Process); it encrypts and decrypts application
// messages. A PublicGroup follows a group without being a member. The engine does no
// input or output: the caller moves MLSMessages, stores the encoded state encrypted,
// and says by a CredentialValidator which credentials it trusts.
//
// # What the engine promises
//
//   - Nothing is believed unverified: a tree is always checked in full, whichever way
//     it comes, and a Commit takes effect only when its confirmation tag is right. On
//     an error a Group is as it was, byte for byte.
//   - A message key is used once. Consumed keys, and what they came from, are neither
//     in memory nor in the saved state; a replay is ErrReplay, after a reload as well.
//   - Work and memory are bounded: strict decoding, at most 1,024 generations skipped
//     by one message, as many stored keys per ratchet and 16,384 per epoch, 4 past
//     epochs kept for late messages, 1,024 proposals per epoch.
//   - No error carries a secret. Secrets are cleared where Go allows it; copies made
//     by the runtime or inside the standard library are out of reach.
//
// # What the caller must do
//
//   - Save the Group after each change and before its effects leave the process: then
//     a crash at any point neither reuses a key nor loses the group.
//   - Let one Commit per epoch win, the same for everyone: that is the delivery
//     service's part (RFC 9420 §14).
//   - Process messages in any order, but Commits in the order of their epochs.
//   - Judge identities in the CredentialValidator; without one everybody is believed.
//
// # Where to find what
//
//	RFC 9420         subject                          file                        test
//	§2.1             presentation language            codec.go                    codec_test.go, fuzz_test.go
//	§4.1, App. C     tree math, resolution, paths     treemath.go, tree.go        treemath_test.go, tree_test.go
//	§5.1             crypto functions, labels         crypto.go                   crypto_test.go
//	§5.2             references                       crypto.go, keypackage.go    crypto_test.go, keypackage_test.go
//	§5.3             credentials, succession          credential.go               credential_test.go
//	§6, §6.1         framing, signatures              framing.go, message.go      framing_test.go, message_test.go
//	§6.2             PublicMessage                    publicmessage.go            framing_test.go, process_test.go
//	§6.3             PrivateMessage, padding          privatemessage.go, encrypt.go  framing_test.go, group_test.go
//	§7.1, §12.4.3.3  tree encoding                    treecodec.go                treevalidate_test.go
//	§7.2, §7.3       leaf nodes, capabilities         leafnode.go, extension.go   keypackage_test.go
//	§7.4 – §7.6      TreeKEM                          treekem.go                  treekem_test.go
//	§7.7             growing and shrinking            tree.go                     tree_test.go, treevalidate_test.go
//	§7.8, §7.9       tree hash, parent hash           treehash.go                 tree_test.go, treevalidate_test.go
//	§7.9.2           tree validation                  treevalidate.go             tree_test.go, treevalidate_test.go
//	§8, §8.1         key schedule, GroupContext       keyschedule.go, context.go  keyschedule_test.go
//	§8.2             transcript hashes                transcript.go               framing_test.go
//	§8.3             external initialization          keyschedule.go              keyschedule_test.go, external_test.go
//	§8.4             pre-shared keys                  psk.go                      psk_test.go, group_test.go
//	§8.5             exporter                         keyschedule.go, group.go    keyschedule_test.go, group_test.go
//	§8.6             resumption PSKs                  epoch.go, group.go          group_test.go
//	§8.7             epoch authenticator              keyschedule.go, group.go    keyschedule_test.go, join_test.go
//	§9               secret tree, deletion            secrettree.go               secrettree_test.go, faults_test.go
//	§10              key packages                     keypackage.go               keypackage_test.go
//	§11              group creation                   create.go                   group_test.go
//	§11.1            required capabilities            extension.go                extension_test.go, process_test.go
//	§12.1, §12.2     proposals, their lists           proposal.go, propose.go, proposallist.go  proposal_test.go, tree_test.go
//	§12.1.8          proposals from outside           proposallist.go, process.go proposal_test.go
//	§12.3            applying proposals               transition.go               tree_test.go, property_test.go
//	§12.4.1          creating a Commit                commit.go, commitproposals.go, selection.go  group_test.go, property_test.go
//	§12.4.2          processing a Commit              process.go, processcommit.go  join_test.go, process_test.go
//	§12.4.3          GroupInfo                        groupinfo.go                faults_test.go, publicgroup_test.go
//	§12.4.3.1        Welcome                          welcome.go, join.go         join_test.go, faults_test.go
//	§12.4.3.2        external Commits                 external.go                 external_test.go, faults_test.go
//	§13              extensions                       extension.go                extension_test.go
//	§15              bounds, reordering, loss         secrettree.go, epoch.go     group_test.go, property_test.go
//	§16              following without membership     publicgroup.go              publicgroup_test.go, property_test.go
//	—                saved state                      state.go, secrettreestate.go, pendingstate.go  state_test.go, property_test.go
//	—                faults found in other engines    —                           faults_test.go
//
// Subgroup branching (§11.3) and the second group of a reinitialization (§11.2) are
// the caller's to start: a ReInit Commit closes the group and tells the parameters.
// Handshake messages are sent as PublicMessage and received in either form.
package mls
