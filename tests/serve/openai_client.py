"""Asks a server with the openai client, in vLLM's own environment: `python openai_client.py PORT MODEL OUTPUT.json`."""

import json
import sys
import time
from pathlib import Path

QUESTION = "Compute 17+4*2 from left to right."


def main() -> None:
    from openai import OpenAI

    port, model, output = sys.argv[1:]
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    greedy = {"model": model, "max_tokens": 16, "temperature": 0}
    messages = [{"role": "user", "content": QUESTION}]
    chat = client.chat.completions.create(messages=messages, **greedy)
    start, first, pieces = time.perf_counter(), None, []
    for chunk in client.chat.completions.create(messages=messages, stream=True, **greedy):
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.perf_counter() - start
            pieces.append(chunk.choices[0].delta.content)
    said = {
        "models": [each.id for each in client.models.list()],
        "completion": client.completions.create(prompt=QUESTION, **greedy).choices[0].text,
        "chat": chat.choices[0].message.content,
        "finish_reason": chat.choices[0].finish_reason,
        "prompt_tokens": chat.usage.prompt_tokens,
        "pieces": pieces,
        "seconds_to_first_token": first,
    }
    Path(output).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
