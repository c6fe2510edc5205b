import assert from "node:assert/strict";
import { formatDiagnostic } from "../../lib/rules/diagnostic.ts";
import { LIMITS } from "../../lib/rules/limits.ts";
import { readRulesDir } from "../../lib/rules/read.ts";

const RULES = 'version: "1"\nrules: []\n';

/** Runs `test` with an empty directory that only its owner can write. */
function inFolder(test: (dir: string) => void): void {
  const dir = Deno.makeTempDirSync({ prefix: "outcall-rules-" });
  try {
    Deno.chmodSync(dir, 0o755);
    test(dir);
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
}

function write(path: string, text: string | Uint8Array, mode = 0o644): void {
  Deno.writeFileSync(path, typeof text === "string" ? new TextEncoder().encode(text) : text);
  Deno.chmodSync(path, mode);
}

/** Codes of the problems in `dir`, in order. */
function problems(dir: string): string[] {
  return readRulesDir(dir).problems.map(({ code }) => code);
}

Deno.test("readRulesDir() finds .yaml and .yml in order, and nothing else (S003-FR-001, S003-EC-020)", () => {
  inFolder((dir) => {
    for (const name of ["50-b.yml", "00-a.yaml", "notes.txt", "rules.json", "x.yaml.bak"]) {
      write(`${dir}/${name}`, RULES);
    }
    const { files, problems } = readRulesDir(`${dir}/`);
    assert.deepEqual(files, [
      { path: `${dir}/00-a.yaml`, text: RULES },
      { path: `${dir}/50-b.yml`, text: RULES },
    ]);
    assert.deepEqual(problems, []);
  });
});

Deno.test("readRulesDir(): a missing or empty directory is an empty set (S003-EC-006, S003-EC-013)", () => {
  inFolder((dir) => {
    assert.deepEqual(readRulesDir(dir), { files: [], problems: [] });
    assert.deepEqual(readRulesDir(`${dir}/none`), { files: [], problems: [] });
  });
});

Deno.test("readRulesDir() refuses a symbolic link to a file or as the directory (ADV-HOST-07)", () => {
  inFolder((dir) => {
    write(`${dir}/real.txt`, RULES);
    Deno.symlinkSync(`${dir}/real.txt`, `${dir}/link.yaml`);
    assert.deepEqual(problems(dir), ["rules.symlink"]);
    Deno.mkdirSync(`${dir}/folder`, { mode: 0o755 });
    Deno.symlinkSync(`${dir}/folder`, `${dir}/alias`);
    assert.deepEqual(problems(`${dir}/alias`), ["rules.symlink"]);
    Deno.symlinkSync(`${dir}/nowhere`, `${dir}/link.yaml.2`);
    assert.deepEqual(problems(`${dir}/link.yaml.2`), ["rules.symlink"]);
  });
});

Deno.test("readRulesDir() refuses a FIFO without waiting for a writer", () => {
  inFolder((dir) => {
    const made = new Deno.Command("mkfifo", { args: [`${dir}/pipe.yaml`] }).outputSync();
    assert.ok(made.success);
    assert.deepEqual(problems(dir), ["rules.not_a_file"]);
  });
});

Deno.test("readRulesDir() refuses a directory named like a rule file, and a file as directory", () => {
  inFolder((dir) => {
    Deno.mkdirSync(`${dir}/folder.yaml`);
    assert.deepEqual(problems(dir), ["rules.not_a_file"]);
    write(`${dir}/a.yaml`, RULES);
    assert.deepEqual(problems(`${dir}/a.yaml`), ["rules.not_a_directory"]);
  });
});

Deno.test("readRulesDir() refuses what group or others may write, and says how to mend it", () => {
  inFolder((dir) => {
    write(`${dir}/group.yaml`, RULES, 0o664);
    write(`${dir}/others.yaml`, RULES, 0o646);
    write(`${dir}/sound.yaml`, RULES, 0o640);
    const result = readRulesDir(dir);
    assert.deepEqual(result.files.map(({ path }) => path), [`${dir}/sound.yaml`]);
    assert.deepEqual(result.problems.map(formatDiagnostic), [
      `${dir}/group.yaml:1:1: is writable by group or others, who could change the policy\n` +
      `    hint: Run: chmod go-w ${dir}/group.yaml`,
      `${dir}/others.yaml:1:1: is writable by group or others, who could change the policy\n` +
      `    hint: Run: chmod go-w ${dir}/others.yaml`,
    ]);
    Deno.chmodSync(dir, 0o777);
    assert.deepEqual(problems(dir), ["rules.writable_by_others"]);
  });
});

Deno.test("readRulesDir() refuses what is not UTF-8", () => {
  inFolder((dir) => {
    write(`${dir}/latin1.yaml`, Uint8Array.of(0x23, 0xe9, 0x0a));
    assert.deepEqual(problems(dir), ["rules.encoding"]);
  });
});

Deno.test("readRulesDir() holds the limits on files and bytes (S003)", () => {
  inFolder((dir) => {
    write(`${dir}/exact.yaml`, "#".repeat(LIMITS.fileBytes));
    assert.deepEqual(problems(dir), []);
    write(`${dir}/large.yaml`, "#".repeat(LIMITS.fileBytes + 1));
    assert.deepEqual(problems(dir), ["rules.too_large"]);
  });
  inFolder((dir) => {
    for (let i = 0; i <= LIMITS.totalBytes / LIMITS.fileBytes; i++) {
      write(`${dir}/${i}.yaml`, "#".repeat(LIMITS.fileBytes));
    }
    assert.deepEqual(problems(dir), ["rules.too_large"]);
  });
  inFolder((dir) => {
    for (let i = 0; i <= LIMITS.files; i++) write(`${dir}/${i}.yaml`, "");
    assert.deepEqual(problems(dir), ["rules.too_many_files"]);
  });
});

Deno.test("readRulesDir() reports every problem, not only the first", () => {
  inFolder((dir) => {
    write(`${dir}/a.yaml`, RULES, 0o666);
    Deno.symlinkSync("/dev/null", `${dir}/b.yaml`);
    write(`${dir}/c.yaml`, Uint8Array.of(0xff));
    assert.deepEqual(problems(dir), [
      "rules.writable_by_others",
      "rules.symlink",
      "rules.encoding",
    ]);
  });
});
