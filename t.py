import os,time,sys,mmap
p=sys.argv[1]
fd=os.open(p+'/f',os.O_CREAT|os.O_RDWR|os.O_APPEND,0o644)
b=b'x'*100
t=time.time()
for i in range(20000): os.write(fd,b)
print('append us',(time.time()-t)/20000*1e6, os.fstat(fd).st_size, os.stat(p+'/f').st_size)
os.close(fd)
print(os.stat(p+'/f').st_size)
