// Volumes and secrets through the unmodified npm package against a Warren server. Prints one JSON object.
import assert from 'node:assert/strict'
import { Sandbox, Secret, SecretNotFoundError, Volume, VolumeError, VolumePathNotFoundError } from 'e2b'

const runtime = process.env.WARREN_TEST_RUNTIME
const name = `js-${runtime}-${Date.now()}`
const MIB = 1024 * 1024

const volume = await Volume.create(name)
try {
  assert.ok((await Volume.list()).some((one) => one.volumeId === volume.volumeId && one.name === name))
  assert.equal((await Volume.getInfo(volume.volumeId)).token, volume.token)
  assert.equal((await Volume.connect(volume.volumeId)).name, name)
  await assert.rejects(Volume.create(name), VolumeError)

  const large = new Uint8Array(20 * MIB).map((_, index) => (index >> 8) * 7)
  const chunks = function* () {
    for (let start = 0; start < large.length; start += MIB) yield large.subarray(start, start + MIB)
  }
  await volume.makeDir('/in/deep', { force: true, mode: 0o750 })
  assert.equal((await volume.writeFile('/in/large', ReadableStream.from(chunks()))).size, large.length)
  assert.deepEqual(new Uint8Array(await new Response(await volume.readFile('/in/large', { format: 'stream' })).arrayBuffer()), large)
  await volume.writeFile('/in/text', 'příliš', { uid: 7, gid: 8, mode: 0o600 })
  assert.equal(await volume.readFile('/in/text'), 'příliš')
  const changed = await volume.updateMetadata('/in/text', { uid: 1000, mode: 0o644 })
  assert.deepEqual([changed.uid, changed.gid, changed.mode, changed.type], [1000, 8, 0o644, 'file'])
  assert.ok(changed.mtime instanceof Date && Math.abs(Date.now() - changed.mtime) < 600_000)
  assert.equal((await volume.getInfo('/in/deep')).type, 'directory')
  assert.deepEqual((await volume.list('/', { depth: 2 })).map((entry) => entry.path), ['/in', '/in/deep', '/in/large', '/in/text'])

  const sandbox = await Sandbox.create('base', {
    timeoutMs: 120_000,
    volumeMounts: { '/mnt/shared': volume },
    headers: { 'X-Warren-Runtime': runtime },
  })
  try {
    const [mount] = (await sandbox.getInfo()).volumeMounts
    assert.deepEqual([mount.name, mount.path], [name, '/mnt/shared'])
    assert.equal((await sandbox.commands.run('cat /mnt/shared/in/text; echo back > /mnt/shared/out')).stdout, 'příliš')
    assert.equal(await volume.readFile('/out'), 'back\n')
    await assert.rejects(Volume.destroy(volume.volumeId), VolumeError)
  } finally {
    await sandbox.kill()
  }
  await volume.remove('/in')
  assert.equal(await volume.exists('/in/text'), false)
  await assert.rejects(volume.readFile('/in/text'), VolumePathNotFoundError)
} finally {
  assert.equal(await Volume.destroy(volume.volumeId), true)
}
assert.equal(await Volume.destroy(volume.volumeId), false)

const secret = await Secret.create(name, 'first', { metadata: { team: 'a' } })
try {
  assert.deepEqual([secret.name, secret.version, secret.metadata], [name, 1, { team: 'a' }])
  assert.equal((await Secret.update(name, 'second')).version, 2)
  assert.equal((await Secret.getInfo(secret.secretId)).version, 2)
  const pages = Secret.list({ limit: 1 })
  const found = []
  while (pages.hasNext) found.push(...(await pages.nextItems()).map((one) => one.name))
  assert.ok(found.includes(name))
  assert.equal(await Secret.exists(name), true)
} finally {
  assert.equal(await Secret.destroy(name), true)
}
assert.equal(await Secret.destroy(name), false)
await assert.rejects(Secret.getInfo(name), SecretNotFoundError)
console.log(JSON.stringify({ ok: true }))
process.exit(0)
