"""Studies: systems x data sets x seeds, run by one command and reported on one page. Behind ``retina_benchmark``.

``definition`` reads the file, ``checks`` looks at what it names, ``runs`` says what defines each run, ``runner`` starts
them, ``worker`` carries one out; ``results`` reads what they found, ``tables`` and ``statistics`` compute with it and
``report`` writes it. ``command`` is the way from the file to the page.
"""
