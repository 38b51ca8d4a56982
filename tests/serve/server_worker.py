"""Starts `vllm serve` on a folder, asks it with the openai client, stops it: `python server_worker.py FOLDER OUTPUT`.

In vLLM's own environment. The output gets the answers of both endpoints, whole and streamed, the seconds to the first
piece of a streamed answer, and the memory of the server's processes.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 300.0


def main() -> None:
    import psutil
    from openai import OpenAI

    folder, output = sys.argv[1:3]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("vllm")), "serve", folder, "--port", str(port), "--host", "127.0.0.1"]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--served-model-name", "ladder"]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1"} | os.environ
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=60, max_retries=0)
    try:
        names = wait_for(client, server)
        messages = [{"role": "user", "content": "Compute 17+4*2 from left to right."}]
        asked = {"model": "ladder", "temperature": 0, "max_tokens": 40}
        chat = client.chat.completions.create(messages=messages, **asked).choices[0]
        start, first, pieces = time.perf_counter(), None, []
        for event in client.chat.completions.create(messages=messages, stream=True, **asked):
            piece = event.choices[0].delta.content if event.choices else None
            if piece:
                first = first if first is not None else time.perf_counter() - start
                pieces.append(piece)
        prompt = "<|user|>Compute 17+4*2 from left to right.<|end|><|assistant|>"
        plain = client.completions.create(prompt=prompt, **asked).choices[0]
        tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        result = {
            "models": names,
            "chat": chat.message.content,
            "reason": chat.finish_reason,
            "streamed": pieces,
            "completion": plain.text,
            "first_piece_seconds": first,
            "memory_bytes": sum(each.memory_full_info().pss for each in tree),
        }
    finally:
        server.terminate()
        status = server.wait(60)
    Path(output).write_text(json.dumps(result | {"status": status}))


def wait_for(client, server) -> list[str]:
    """The names of the models, once the server answers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended: {server.stderr.read().decode()[-3000:]}")
        try:
            return [each.id for each in client.models.list().data]
        except Exception:
            time.sleep(1)
    raise RuntimeError("the server does not answer")


if __name__ == "__main__":
    main()
