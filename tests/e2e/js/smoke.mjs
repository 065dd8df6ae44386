// The unmodified npm package against a Warren server: everything that a first program does. Prints one JSON object.
import assert from 'node:assert/strict'
import { NotFoundError, Sandbox, SandboxError } from 'e2b'

const runtime = process.env.WARREN_TEST_RUNTIME
const timeout = (seconds) => AbortSignal.timeout(seconds * 1000)
const facts = {}

const sandbox = await Sandbox.create('base', {
  timeoutMs: 120_000,
  metadata: { by: 'node', mark: runtime },
  envs: { COLOUR: 'deep blue' },
  headers: { 'X-Warren-Runtime': runtime },
})
try {
  const hello = await sandbox.commands.run('echo "$COLOUR"; echo oops >&2')
  assert.equal(hello.stdout, 'deep blue\n')
  assert.equal(hello.stderr, 'oops\n')
  await assert.rejects(sandbox.commands.run('exit 7'), (error) => error.exitCode === 7)

  await sandbox.files.write('/tmp/dir/text', 'příliš žluťoučký kůň')
  assert.equal(await sandbox.files.read('/tmp/dir/text'), 'příliš žluťoučký kůň')
  const bytes = new Uint8Array(3 << 20).map((_, index) => index * 7)
  await sandbox.files.write('/tmp/bytes', bytes.buffer)
  assert.deepEqual(await sandbox.files.read('/tmp/bytes', { format: 'bytes' }), bytes)
  assert.deepEqual((await sandbox.files.list('/tmp/dir')).map((entry) => entry.name), ['text'])
  await assert.rejects(sandbox.files.read('/tmp/missing'), NotFoundError)

  const events = []
  const written = deferred()
  const watch = await sandbox.files.watchDir('/tmp/dir', (event) => {
    events.push(event)
    if (event.type === 'write') written.resolve()
  })
  await sandbox.files.write('/tmp/dir/new', 'x')
  await Promise.race([written.promise, rejectAfter(timeout(20), 'no write event')])
  await watch.stop()
  assert.ok(events.some((event) => event.name === 'new' && event.type === 'create'))

  let shown = ''
  const saw = deferred()
  const terminal = await sandbox.pty.create({
    cols: 90,
    rows: 20,
    timeoutMs: 0,
    onData: (data) => {
      shown += new TextDecoder().decode(data)
      if (shown.includes('width 90\r\n')) saw.resolve()
    },
  })
  await sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode(`echo wi''dth $(tput cols)\n`))
  await Promise.race([saw.promise, rejectAfter(timeout(20), `no columns in ${shown}`)])
  await sandbox.pty.kill(terminal.pid)

  const url = await sandbox.downloadUrl('/tmp/dir/text')
  assert.equal(await (await fetch(url)).text(), 'příliš žluťoučký kůň')

  await sandbox.setTimeout(300_000)
  const info = await sandbox.getInfo()
  assert.deepEqual(info.metadata, { by: 'node', mark: runtime })
  assert.ok(info.endAt - Date.now() > 250_000)
  const listed = await Sandbox.list({ query: { metadata: { by: 'node', mark: runtime } } }).nextItems()
  assert.deepEqual(listed.map((one) => one.sandboxId), [sandbox.sandboxId])

  const kept = await sandbox.commands.run('exec sleep 1000', { background: true, timeoutMs: 0 })
  const bootId = (one) => one.files.read('/proc/sys/kernel/random/boot_id')
  const stillHas = async (one) => (await one.commands.list()).some((process) => process.pid === kept.pid)
  const booted = await bootId(sandbox)
  assert.equal(await sandbox.pause(), true)
  assert.equal(await sandbox.pause(), false)
  const [paused] = await Sandbox.list({ query: { metadata: { mark: runtime }, state: ['paused'] } }).nextItems()
  assert.equal(paused.sandboxId, sandbox.sandboxId)
  const woken = await Sandbox.connect(sandbox.sandboxId)
  assert.deepEqual([await stillHas(woken), await bootId(woken)], [true, booted])
  assert.equal(await woken.files.read('/tmp/dir/text'), 'příliš žluťoučký kůň')
  const snapshot = await sandbox.createSnapshot({ name: `js-${runtime}` })
  const copies = [...(await sandbox.fork({ count: 1 })), await Sandbox.create(snapshot.snapshotId, { timeoutMs: 60_000 })]
  for (const copy of copies) {
    assert.equal(await copy.files.read('/tmp/dir/text'), 'příliš žluťoučký kůň')
    assert.notEqual(copy.sandboxId, sandbox.sandboxId)
    const wentOn = runtime === 'runsc' // from the memory too
    assert.deepEqual([await stillHas(copy), (await bootId(copy)) === booted], [wentOn, wentOn])
    await copy.kill()
  }
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)

  const sleeping = await sandbox.commands.run('sleep 600', { background: true, timeoutMs: 0 })
  facts.host = sandbox.getHost(8000)
  assert.equal(await sandbox.kill(), true)
  await assert.rejects(sleeping.wait(), SandboxError)
  assert.equal(await sandbox.isRunning(), false)
  assert.equal(await Sandbox.kill(sandbox.sandboxId), false)
} finally {
  await Sandbox.kill(sandbox.sandboxId)
}
console.log(JSON.stringify({ ok: true, ...facts }))
process.exit(0)

function deferred() {
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}

function rejectAfter(signal, why) {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error(why))))
}
