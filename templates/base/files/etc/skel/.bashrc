case $- in *i*) ;; *) return ;; esac
HISTCONTROL=ignoreboth
HISTSIZE=1000
HISTFILESIZE=2000
shopt -s histappend
alias ls='ls --color=auto' ll='ls -alF' grep='grep --color=auto'
