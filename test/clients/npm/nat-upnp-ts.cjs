// Maps a port with nat-upnp-ts or one of its kind, waits for the end of standard
// input, unmaps. Two of them send the word "undefined" as the remote host when none
// is given.
const { Client } = require(process.argv[5])
const client = new Client({ timeout: 20000 })
const mapping = { public: 6410, private: 6411, protocol: 'tcp', ttl: 600, description: 'nat-upnp-ts' }

async function main () {
  await client.createMapping(mapping)
  console.log('external', await client.getPublicIp())
  for await (const _ of process.stdin);
  await client.removeMapping(mapping)
}

main().then(() => process.exit(0), (err) => {
  console.error(err.message ?? err)
  process.exit(1)
})
