// Maps a port with nat-upnp, waits for the end of standard input, unmaps.
const client = require('nat-upnp').createClient()

function must (err) {
  if (err) {
    console.error(err)
    process.exit(1)
  }
}

client.externalIp((err, ip) => {
  must(err)
  console.log('external', ip)
  client.portMapping({ public: 6400, private: 6401, protocol: 'tcp', ttl: 600, description: 'nat-upnp' }, (err) => {
    must(err)
    console.log('mapped')
    process.stdin.on('end', () => {
      client.portUnmapping({ public: 6400, protocol: 'tcp' }, (err) => {
        must(err)
        process.exit(0)
      })
    })
    process.stdin.resume()
  })
})
