// Maps a port with @achingbrain/nat-port-mapper, waits for the end of standard
// input, unmaps.
import { upnpNat } from '@achingbrain/nat-port-mapper'

const address = process.argv[2]
const client = upnpNat()
for await (const gateway of client.findGateways({ signal: AbortSignal.timeout(20000) })) {
  const mapping = await gateway.map(6300, address, { protocol: 'udp', description: 'nat-port-mapper' })
  console.log('mapped', JSON.stringify(mapping), await gateway.externalIp())
  for await (const _ of process.stdin);
  await gateway.unmap(6300)
  await gateway.stop()
  break
}
process.exit(0)
