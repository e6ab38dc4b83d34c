"""What applications tell of themselves: latency and requests, scraped, pushed or sent as StatsD.

    [[apps]], annotations -- targets.py: of whom what is asked
    Prometheus -- http.py -> exposition.py -> scraped.py --\\
    gRPC ----------------------------------- pushed.py ---- window.py -> AppReading -- told.py -> Pod.app
    StatsD ----- statsd.py ------------------------------ /

It runs on one thread of its own, which there is only where something is to be asked or heard; the loop takes
what is there. Imports nothing of nodeagent but model.
"""
