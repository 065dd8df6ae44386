// The unmodified npm package `@e2b/code-interpreter` against a Warren server. Prints one JSON object.
import assert from 'node:assert/strict'
import { Sandbox, TimeoutError } from '@e2b/code-interpreter'

const sandbox = await Sandbox.create({
  timeoutMs: 600_000,
  headers: { 'X-Warren-Runtime': process.env.WARREN_TEST_RUNTIME },
  envs: { GLOBAL: 'of the sandbox' },
})
try {
  const heard = []
  const hello = await sandbox.runCode('print("příliš\u2028 kůň"); x = 41', { onStdout: (line) => heard.push(line.line) })
  assert.deepEqual(hello.logs.stdout, ['příliš\u2028 kůň\n'])
  assert.deepEqual(heard, hello.logs.stdout)
  assert.equal((await sandbox.runCode('x + 1')).text, '42')
  assert.equal((await sandbox.runCode('import os; os.environ["GLOBAL"]')).text, 'of the sandbox')
  assert.equal((await sandbox.runCode('os.environ["GLOBAL"]', { envs: { GLOBAL: 'of one call' } })).text, 'of one call')

  const failed = await sandbox.runCode('raise KeyError("no")')
  assert.equal(failed.error.name, 'KeyError')

  const typed = await sandbox.runCode('const p: Promise<number> = Promise.resolve(7); await p', { language: 'ts' })
  assert.equal(typed.text, '7')

  const plotted = await sandbox.runCode('import matplotlib.pyplot as plt; plt.bar(["a", "b"], [1, 2]); plt.show()')
  const plot = plotted.results.find((result) => result.png)
  assert.equal(plot.chart.type, 'bar')
  assert.deepEqual(plot.chart.elements.map((bar) => bar.label), ['a', 'b'])

  const context = await sandbox.createCodeContext({ cwd: '/tmp', language: 'python' })
  assert.equal((await sandbox.runCode('import os; os.getcwd()', { context })).text, '/tmp')
  assert.equal((await sandbox.listCodeContexts()).at(-1).id, context.id)
  await sandbox.restartCodeContext(context)
  await sandbox.removeCodeContext(context)

  await assert.rejects(sandbox.runCode('while True: pass', { timeoutMs: 2_000 }), TimeoutError)
  assert.equal((await sandbox.runCode('x')).text, '41')

  const cut = sandbox.runCode('import time; time.sleep(120)')
  const refused = assert.rejects(cut, TimeoutError)
  await new Promise((done) => setTimeout(done, 1_000))
  await sandbox.kill()
  await refused
  console.log(JSON.stringify({ ok: true }))
} finally {
  await sandbox.kill()
}
process.exit(0) // the client keeps idle connections for a while
