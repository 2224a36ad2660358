"""A program that has never heard of Pilothouse: two questions to a model, one after the other."""

from __future__ import annotations

import json
import sys

import openai

given = json.load(sys.stdin)
client = openai.OpenAI()


def ask(text: str) -> str:
    answer = client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": text}])
    return str(answer.choices[0].message.content)


ask(f"I have two questions. {given['prompt']}")
json.dump(ask(f"This is the second question. {given['prompt']}"), sys.stdout)
