// Maps a port with nat-pmp, waits for the end of standard input, unmaps. The
// library asks from port 5350, asks once, and wants replies of exactly 12 and 16
// octets.
const client = require('nat-pmp').connect(process.argv[4])

function must (err) {
  if (err) {
    console.error(err)
    process.exit(1)
  }
}

client.externalIp((err, info) => {
  must(err)
  console.log('external', info.ip.join('.'))
  client.portMapping({ type: 'tcp', private: 6451, public: 6450, ttl: 600 }, (err, info) => {
    must(err)
    console.log('mapped', info.public, info.private, info.ttl)
    process.stdin.on('end', () => {
      client.portUnmapping({ type: 'tcp', private: 6451, public: 6450 }, (err, info) => {
        must(err)
        console.log('unmapped', info.public, info.ttl)
        client.close()
        process.exit(0)
      })
    })
    process.stdin.resume()
  })
})
