"""The HTTP side, as ASGI applications that Hypercorn serves in our nursery.

``asgi`` is routing and answers, ``status`` the two status pages, ``exposition`` the metrics, ``server`` runs
Hypercorn. A further page is one more entry in the table that ``app.py`` puts together.
"""
