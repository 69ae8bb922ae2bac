// Maps a port with nat-puncher by NAT-PMP or PCP, or has it probe what there is;
// waits for the end of standard input, unmaps. That its deletions report failure
// is its own mistake (it makes a view of the reply that Node does not allow): they
// are sent, and the test looks whether they were obeyed.
const client = require('nat-puncher')

async function main (how) {
  if (how === 'probe') {
    const found = await client.probeProtocolSupport()
    console.log('found', JSON.stringify(found))
    if (!found.natPmp || !found.pcp || !found.upnp) {
      throw new Error('it does not find every protocol')
    }
  } else {
    const mapping = await (how === 'pcp' ? client.addMappingPcp(6480, 6481, 600) : client.addMappingPmp(6480, 6481, 600))
    if (mapping.externalPort !== 6481 || mapping.internalIp !== process.argv[2]) {
      throw new Error('mapped ' + JSON.stringify(mapping))
    }
    console.log('external', mapping.externalIp)
  }
  for await (const _ of process.stdin);
  await client.close()
}

main(process.argv[3]).then(() => process.exit(0), (err) => {
  console.error(err)
  process.exit(1)
})
