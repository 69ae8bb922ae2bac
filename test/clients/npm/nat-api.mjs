// Maps a port with @silentbot1/nat-api by UPnP or NAT-PMP, waits for the end of
// standard input, unmaps.
import NatAPI from '@silentbot1/nat-api'

const pmp = process.argv[3] === 'natpmp'
const client = new NatAPI({ enablePMP: pmp, enableUPNP: !pmp, ttl: 1200, autoUpdate: false, description: 'nat-api' })
const mapped = await client.map({ publicPort: 6350, privatePort: 6351, protocol: 'UDP', description: 'nat-api' })
if (!mapped) {
  throw new Error('not mapped')
}
console.log('external', await client.externalIp())
for await (const _ of process.stdin);
await client.destroy()
process.exit(0)
