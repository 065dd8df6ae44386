// Templates built by the unmodified npm package against a Warren server. Prints one JSON object.
import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BuildError, Sandbox, Template } from 'e2b'

const name = process.argv[2]
const folder = mkdtempSync(join(tmpdir(), 'context-'))
writeFileSync(join(folder, 'said.txt'), 'copied\n')

const lines = []
const template = Template({ fileContextPath: folder })
  .fromTemplate('base')
  .setEnvs({ COLOUR: 'deep blue' })
  .copy('said.txt', '/home/user/said.txt')
  .runCmd('echo said by a step')
const info = await Template.build(template, `${name}:v1`, {
  tags: ['default'],
  cpuCount: 1,
  memoryMB: 512,
  onBuildLogs: (entry) => lines.push(entry.message),
})
assert.ok(lines.some((line) => line.includes('said by a step')), lines.join('\n'))
assert.equal((await Template.getBuildStatus(info)).status, 'ready')
assert.equal(await Template.exists(name), true)
assert.equal(await Template.exists(`${name}x`), false)

const assigned = await Template.assignTags(`${name}:v1`, ['v2', 'stable'])
assert.equal(assigned.buildId, info.buildId)
await Template.removeTags(name, 'v1')
const tags = (await Template.getTags(name)).map((tag) => tag.tag).sort()
assert.deepEqual(tags, ['default', 'stable', 'v2'])

const sandbox = await Sandbox.create(`${name}:stable`, { timeoutMs: 60_000 })
try {
  const said = await sandbox.commands.run('cat said.txt; echo "$COLOUR"')
  assert.equal(said.stdout, 'copied\ndeep blue\n')
} finally {
  await sandbox.kill()
}

const failing = Template().fromTemplate('base').runCmd('whoami', { user: 'root123' })
const background = await Template.buildInBackground(failing, `${name}:broken`)
assert.equal(background.templateId, info.templateId)
await assert.rejects(Template.build(failing, name), (error) => {
  assert.ok(error instanceof BuildError)
  assert.equal(
    error.message,
    "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'",
  )
  return true
})
console.log(JSON.stringify({ ok: true, template: info.templateId }))
process.exit(0) // the client keeps idle connections for a while
