"""A trained model for other programs, over HTTP. In: a model and requests in OpenAI's format. Out:
answers, whole or token by token, the same as `ocrtrain.ask` gives. Read `endpoint.py` first: it has
the routes; `chat_request.py` checks requests, `batcher.py` owns the model. It imports `images`,
`tokens` and `sample` of `ocrdata` because requests carry images and become conversations.
"""
