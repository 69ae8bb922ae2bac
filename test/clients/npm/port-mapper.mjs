// Maps a port with @achingbrain/nat-port-mapper by UPnP or NAT-PMP, waits for the
// end of standard input, unmaps.
import { pmpNat, upnpNat } from '@achingbrain/nat-port-mapper'

const [address, via, router] = process.argv.slice(2)

async function find () {
  if (via === 'natpmp') {
    return pmpNat(router)
  }
  for await (const gateway of upnpNat().findGateways({ signal: AbortSignal.timeout(20000) })) {
    if (gateway.family === 'IPv4') { // by IPv6 it asks WANIPConnection for AddPinhole, which is 401
      return gateway
    }
  }
}

const gateway = await find()
const mapping = await gateway.map(6300, address, { protocol: via === 'natpmp' ? 'tcp' : 'udp', description: 'nat-port-mapper' })
console.log('mapped', JSON.stringify(mapping))
console.log('external', await gateway.externalIp())
for await (const _ of process.stdin);
await gateway.unmap(6300)
if (via === 'upnp') {
  await gateway.stop() // by NAT-PMP it fails: it binds its socket once more
}
process.exit(0)
